{-# LANGUAGE OverloadedStrings #-}

-- |
-- LLM calls through the llmd daemon of this machine, over its Unix socket.
--
-- One module to drop into a program, on base, bytestring, text, aeson and network alone. Import it qualified where its
-- short names are taken.
--
-- > main = withClient $ \llmd -> do
-- >   answer <- execute llmd (ask "hello") {askModel = Just "echo/echo"}
-- >   Text.putStrLn (answerText answer)
--
-- A 'Client' may be used by any number of threads at once. Each call waits in the thread that makes it, and whatever
-- ends that wait early ('Control.Concurrent.killThread', 'System.Timeout.timeout', an exception in a callback) cancels
-- the call, which is aborted at its provider. What goes wrong is thrown as an 'LLMError'.
module LLMD
  ( -- * A client
    Client,
    Options (..),
    options,
    withClient,
    connect,
    disconnect,

    -- * Calls to models
    Ask (..),
    ask,
    user,
    execute,
    executeStreaming,
    executeMany,
    Delta (..),
    Piece (..),
    Answer (..),
    Usage (..),

    -- * Budgets
    Budget (..),
    Terms (..),
    Amounts,
    total,
    openBudget,
    withBudget,
    readBudget,
    closeBudget,
    Snapshot (..),

    -- * Any other method
    call,

    -- * Errors
    LLMError (..),
    Failure (..),
    Kind (..),
    retryable,
  )
where

import Control.Concurrent (forkIO, killThread)
import Control.Concurrent.Chan (Chan, newChan, readChan, writeChan)
import Control.Concurrent.MVar
import Control.Exception
import Control.Monad (forM_, unless, when, (>=>))
import Data.Aeson hiding (Options)
import qualified Data.Aeson.Key as Key
import qualified Data.Aeson.KeyMap as KeyMap
import Data.Aeson.Types (Pair, Parser, parseEither)
import Data.Bifunctor (first)
import qualified Data.ByteString as Bytes
import qualified Data.ByteString.Char8 as Lines (lines)
import qualified Data.ByteString.Lazy as Lazy
import Data.List (intercalate)
import Data.Maybe (catMaybes, fromMaybe, isNothing)
import Data.Text (Text)
import qualified Data.Text as Text
import Foreign.C (CInt (..), CString, CUInt (..), peekCAStringLen, withCString)
import GHC.Foreign (withCStringLen)
import GHC.IO.Encoding (getFileSystemEncoding)
import Network.Socket (Family (AF_UNIX), ShutdownCmd (..), SockAddr (..), Socket, SocketType (Stream))
import qualified Network.Socket as Socket
import Network.Socket.ByteString (recv)
import Network.Socket.ByteString.Lazy (sendAll)
import System.Environment (lookupEnv)
import System.IO.Error (isPermissionError)
import System.Timeout (timeout)
import Text.Read (readMaybe)

-- ---------------------------------------------------------------------------------------------------------------------
-- A client

-- | The connections of a program to its daemon. They are made when they are needed, carry many calls at once, and are
-- made anew behind a restart of the daemon.
data Client = Client
  { clientOptions :: Options,
    clientTurn :: MVar Int,
    clientSlots :: [MVar (Maybe Connection)]
  }

-- | How a client connects. Change what should differ: @options {optionSocket = Just "/run/llmd/rpc.sock"}@.
data Options = Options
  { -- | The daemon's socket; unless it is told: @$LLMD_SOCKET@, else where a daemon listens by itself.
    optionSocket :: Maybe FilePath,
    -- | How many connections there are at most, which calls use in turn. The daemon takes 256 calls at once on each.
    optionConnections :: Int,
    -- | The longest message that the daemon takes, in bytes. A longer one would cost the other calls their connection,
    -- so it is refused here.
    optionFrameBytes :: Int
  }
  deriving (Eq, Show)

-- | The usual socket, 4 connections, 16 MiB.
options :: Options
options = Options {optionSocket = Nothing, optionConnections = 4, optionFrameBytes = 16 * 1024 * 1024}

-- | A client for as long as the function runs: 'connect' and 'disconnect' with the usual 'options'.
withClient :: (Client -> IO a) -> IO a
withClient = bracket (connect options) disconnect

-- | A client, once its first connection stands. Throws 'NoDaemon' and 'Forbidden'.
connect :: Options -> IO Client
connect chosen = do
  client <- Client chosen <$> newMVar 0 <*> mapM newMVar (Nothing <$ [1 .. max 1 (optionConnections chosen)])
  client <$ connection client

-- | Cancels what is still in flight and closes the connections. A call after that makes new ones.
disconnect :: Client -> IO ()
disconnect client = forM_ (clientSlots client) $ \slot -> swapMVar slot Nothing >>= mapM_ leave

-- | The next connection in turn, made if it is not there or no longer.
connection :: Client -> IO Connection
connection client = mask_ $ do
  turn <- modifyMVar (clientTurn client) $ \turn -> pure (turn + 1, turn)
  let slots = clientSlots client
  modifyMVar (slots !! (turn `mod` length slots)) $ \held -> do
    living <- maybe (pure False) (fmap (not . isNothing) . readMVar . connectionCalls) held
    this <- maybe (open (clientOptions client)) pure (if living then held else Nothing)
    pure (Just this, this)

-- ---------------------------------------------------------------------------------------------------------------------
-- Calls to models

-- | What to ask of a model: the parameters of the method @execute@. What is 'Nothing' or empty is not sent.
data Ask = Ask
  { -- | The turns of the conversation, each as the protocol has it: see 'user' and 'answerMessage'.
    askMessages :: [Value],
    -- | What the model is told before them.
    askSystem :: Maybe Text,
    -- | @provider/model@; unless it is told, the daemon's rules and defaults choose.
    askModel :: Maybe Text,
    -- | The budget that pays.
    askBudget :: Maybe Budget,
    -- | The most tokens of the answer.
    askMaxTokens :: Maybe Int,
    -- | How much chance there is in the answer, from 0.
    askTemperature :: Maybe Double,
    -- | What kind of request this is, for the daemon's rules.
    askTaskType :: Maybe Text,
    -- | What else those rules may look at.
    askLabels :: [(Text, Text)],
    -- | How long the call may take, in milliseconds, waiting in queues included.
    askTimeoutMs :: Maybe Int,
    -- | Makes a retry with the same key join the call or get its result, so that it is not paid twice.
    askIdempotencyKey :: Maybe Text,
    -- | Every other parameter, under the protocol's name for it: @["tools" .= …, "stop" .= …]@.
    askMore :: [Pair]
  }
  deriving (Eq, Show)

-- | Asks just this.
ask :: Text -> Ask
ask prompt = Ask [user prompt] Nothing Nothing Nothing Nothing Nothing Nothing [] Nothing Nothing []

-- | A turn of the user.
user :: Text -> Value
user said = object ["role" .= ("user" :: Text), "content" .= said]

instance ToJSON Ask where
  toJSON = object . asked

asked :: Ask -> [Pair]
asked this =
  catMaybes
    [ Just ("messages" .= askMessages this),
      ("system" .=) <$> askSystem this,
      ("model" .=) <$> askModel this,
      ("budget" .=) . budgetHandle <$> askBudget this,
      ("max_tokens" .=) <$> askMaxTokens this,
      ("temperature" .=) <$> askTemperature this,
      ("task_type" .=) <$> askTaskType this,
      if null (askLabels this) then Nothing else Just ("labels" .= members (askLabels this)),
      ("timeout_ms" .=) <$> askTimeoutMs this,
      ("idempotency_key" .=) <$> askIdempotencyKey this
    ]
    <> askMore this

-- | One call to a model.
execute :: Client -> Ask -> IO Answer
execute client this = call client "execute" (asked this) >>= readAs

-- | The same, with the answer in pieces as they come. The callback runs in the calling thread, for one piece after the
-- other and for all of them before this returns, and may itself use the client. What it throws cancels the call.
executeStreaming :: Client -> Ask -> (Delta -> IO ()) -> IO Answer
executeStreaming client this heard = exchange client "execute" (asked this) (Just heard) >>= readAs

-- | Many calls at once, which take as long as the slowest of them. The results are in the order of the calls, and one
-- that fails fails no other. For @max_concurrency@ and the like 'call' @execute_many@.
executeMany :: Client -> [Ask] -> IO [Either Failure Answer]
executeMany client these = call client "execute_many" ["calls" .= these] >>= readWith results
  where
    results = withObject "results" (.: "results") >=> mapM result
    result = withObject "result" $ \this -> this .:? "ok" >>= maybe (Left <$> this .: "error") (pure . Right)

-- | One piece of an answer. They are counted from 0 without gaps.
data Delta = Delta {deltaSeq :: Int, deltaPiece :: Piece}
  deriving (Eq, Show)

-- | What a piece is of. The texts, joined, are 'answerText'.
data Piece
  = -- | The answer itself.
    TextPiece Text
  | -- | What the model thinks before it.
    ReasoningPiece Text
  | -- | A call of a tool, or anything else, as the protocol has it.
    OtherPiece Object
  deriving (Eq, Show)

instance FromJSON Delta where
  parseJSON = withObject "delta" $ \this -> do
    text <- this .:? "text"
    reasoning <- this .:? "reasoning"
    let thought = maybe (OtherPiece this) ReasoningPiece reasoning
    Delta <$> this .: "seq" <*> pure (maybe thought TextPiece text)

-- | What a model answered.
data Answer = Answer
  { -- | The whole text.
    answerText :: Text,
    -- | Why it ends: @stop@, @length@, @tool_calls@, @content_filter@, @refusal@, @other@, or what may be added.
    answerFinish :: Text,
    -- | Who answered.
    answerProvider :: Text,
    -- | Which of their models.
    answerModel :: Text,
    -- | The tools to call: objects with @id@, @name@ and @arguments@.
    answerToolCalls :: [Value],
    -- | What the model thought, where that is told.
    answerReasoning :: Maybe Text,
    -- | The turn of the assistant, to append to 'askMessages' as it is.
    answerMessage :: Value,
    -- | What it used.
    answerUsage :: Usage,
    -- | What it cost, in billionths of a US dollar, where a price is known.
    answerNanoUsd :: Maybe Int,
    -- | How the budget stands after it.
    answerBudget :: Maybe Snapshot,
    -- | All of it as the protocol has it, with @route@, @dropped@ and what may be added.
    answerObject :: Object
  }
  deriving (Eq, Show)

instance FromJSON Answer where
  parseJSON = withObject "answer" $ \this ->
    Answer
      <$> this .: "text"
      <*> this .: "finish_reason"
      <*> this .: "provider"
      <*> this .: "model"
      <*> this .: "tool_calls"
      <*> this .:? "reasoning"
      <*> this .: "message"
      <*> this .: "usage"
      <*> (this .:? "cost" >>= maybe (pure Nothing) (fmap Just . (.: "nano_usd")))
      <*> this .:? "budget"
      <*> pure this

-- | Tokens that a call used.
data Usage = Usage
  { -- | Of the request, cached ones included.
    usageInput :: Int,
    -- | Of the answer, reasoning included.
    usageOutput :: Int,
    -- | Whether the provider has said so.
    usageExact :: Bool
  }
  deriving (Eq, Show)

instance FromJSON Usage where
  parseJSON = withObject "usage" $ \this ->
    Usage <$> this .: "input_tokens" <*> this .: "output_tokens" <*> this .: "exact"

-- ---------------------------------------------------------------------------------------------------------------------
-- Budgets

-- | A budget that is open. Who has the handle may spend from it, and open smaller ones below it.
data Budget = Budget
  { -- | What gives the right to spend. Hand it to whom you trust with that, and keep it out of logs.
    budgetHandle :: Text,
    -- | Its public name, for people and logs.
    budgetId :: Text
  }
  deriving (Eq)

-- | Without the handle.
instance Show Budget where
  showsPrec depth this = showParen (depth > 10) $ showString "Budget " . showsPrec 11 (budgetId this)

instance FromJSON Budget where
  parseJSON = withObject "budget" $ \this -> Budget <$> this .: "budget" <*> this .: "id"

-- | So much in each unit: @total_tokens@, @input_tokens@, @output_tokens@, @requests@, @nano_usd@.
type Amounts = [(Text, Int)]

-- | What a budget is opened with. What is 'Nothing' or empty is not sent.
data Terms = Terms
  { -- | The most that may be spent.
    termsLimits :: Amounts,
    -- | The budget that it is a part of.
    termsParent :: Maybe Budget,
    -- | What is set aside for it there at once.
    termsGuarantee :: Amounts,
    -- | A name for people.
    termsLabel :: Maybe Text,
    -- | After so many seconds without use it closes by itself.
    termsLeaseS :: Maybe Int,
    -- | Every other parameter of @budget.open@, under the protocol's name for it: @["window" .= …, "allow" .= …]@.
    termsMore :: [Pair]
  }
  deriving (Eq, Show)

-- | A limit of so many tokens, whatever of: @(total 4000) {termsParent = Just above}@.
total :: Int -> Terms
total tokens = Terms [("total_tokens", tokens)] Nothing [] Nothing Nothing []

-- | Opens a budget. One that nobody closes closes when its lease ends.
openBudget :: Client -> Terms -> IO Budget
openBudget client terms = call client "budget.open" params >>= readAs
  where
    params =
      catMaybes
        [ Just ("limits" .= members (termsLimits terms)),
          ("parent" .=) . budgetHandle <$> termsParent terms,
          if null (termsGuarantee terms) then Nothing else Just ("guarantee" .= members (termsGuarantee terms)),
          ("label" .=) <$> termsLabel terms,
          ("lease_s" .=) <$> termsLeaseS terms
        ]
        <> termsMore terms

-- | A budget for as long as the function runs. When that returns, calls that still spend from the budget may end before
-- it closes; when it throws or its thread is killed, they are cancelled.
withBudget :: Client -> Terms -> (Budget -> IO a) -> IO a
withBudget client terms body = mask $ \restore -> do
  opening <- detached (openBudget client terms)
  budget <- outcome opening `onException` detached (outcome opening >>= closing "cancel")
  result <- restore (body budget) `onException` (detached (closing "cancel" budget) >>= readMVar)
  result <$ (detached (closing "drain" budget) >>= outcome)
  where
    closing = flip (closeIn client)
    outcome running = readMVar running >>= either throwIO pure

-- | Runs in a thread of its own, which nobody kills, so that what has begun ends.
detached :: IO a -> IO (MVar (Either SomeException a))
detached action = do
  result <- newEmptyMVar
  result <$ forkIO (try action >>= putMVar result)

-- | How a budget stands.
readBudget :: Client -> Budget -> IO Snapshot
readBudget client budget = call client "budget.get" ["budget" .= budgetHandle budget] >>= readAs

-- | Closes a budget and all below it, once the calls that spend from it have ended; it takes no new ones meanwhile.
closeBudget :: Client -> Budget -> IO Snapshot
closeBudget client budget = closeIn client budget "drain"

closeIn :: Client -> Budget -> Text -> IO Snapshot
closeIn client budget mode =
  call client "budget.close" ["budget" .= budgetHandle budget, "mode" .= mode]
    >>= readWith (withObject "statement" (.: "budget"))

-- | A budget at one moment. All amounts are of it and everything below it.
data Snapshot = Snapshot
  { -- | Its public name.
    snapshotId :: Text,
    -- | Its name for people.
    snapshotLabel :: Maybe Text,
    -- | @open@, @draining@ or @closed@.
    snapshotState :: Text,
    -- | The most that may be spent.
    snapshotLimits :: Amounts,
    -- | What has been spent.
    snapshotSettled :: Amounts,
    -- | What calls in flight may still cost.
    snapshotHeld :: Amounts,
    -- | The part of what was spent that is a bound, because nobody knows better.
    snapshotUncertain :: Amounts,
    -- | What could be had now, 'Nothing' for a unit that nothing limits.
    snapshotAvailable :: [(Text, Maybe Int)]
  }
  deriving (Eq, Show)

instance FromJSON Snapshot where
  parseJSON = withObject "snapshot" $ \this ->
    Snapshot
      <$> this .: "id"
      <*> this .:? "label"
      <*> this .: "state"
      <*> amounts this "limits"
      <*> amounts this "settled"
      <*> amounts this "held"
      <*> amounts this "uncertain"
      <*> amounts this "available"
    where
      amounts this name = map (first Key.toText) . KeyMap.toList <$> this .: name

-- ---------------------------------------------------------------------------------------------------------------------
-- Errors

-- | What may be thrown by whatever takes a 'Client'.
data LLMError
  = -- | The daemon answered with an error.
    Refused Failure
  | -- | Nobody listens at any of these sockets; nothing was sent.
    NoDaemon [FilePath]
  | -- | The daemon at this socket is another user's; nothing was sent.
    Forbidden FilePath
  | -- | The connection broke before the answer came: whether the call was made, nobody knows.
    ConnectionLost
  | -- | The daemon's answer is not of protocol 1: where it differs.
    Unreadable String
  deriving (Eq, Show)

instance Exception LLMError where
  displayException (Refused failure) = Text.unpack (failureMessage failure)
  displayException (NoDaemon tried) = "no daemon listens on " <> intercalate " or " tried
  displayException (Forbidden path) = path <> " belongs to another user"
  displayException ConnectionLost = "the connection to the daemon broke before the answer came"
  displayException (Unreadable problem) = "the daemon's answer cannot be read: " <> problem

-- | Whether the same call may succeed later, without being made twice.
retryable :: LLMError -> Bool
retryable (Refused failure) = failureRetryable failure
retryable (NoDaemon _) = True
retryable _ = False

-- | An error that the daemon answered with. Decide by 'failureKind' and 'failureRetryable', never by the text.
data Failure = Failure
  { -- | What it means to a program.
    failureKind :: Kind,
    -- | Whether the same call may succeed later.
    failureRetryable :: Bool,
    -- | The JSON-RPC code.
    failureCode :: Int,
    -- | One sentence for a person.
    failureMessage :: Text,
    -- | What else is told of such an error: @retry_after_ms@, @max_fit@, @attempts@, …
    failureData :: Object
  }
  deriving (Eq, Show)

instance FromJSON Failure where
  parseJSON = withObject "error" $ \this -> do
    more <- this .:? "data" .!= KeyMap.empty
    Failure
      <$> (kindOf <$> more .:? "kind" .!= "")
      <*> more .:? "retryable" .!= False
      <*> this .: "code"
      <*> this .: "message"
      <*> pure more

-- | The kinds of errors, as the protocol has them.
data Kind
  = ParseError
  | InvalidRequest
  | MethodNotFound
  | InvalidParams
  | InternalError
  | ShuttingDown
  | Busy
  | DeadlineExceeded
  | TooLarge
  | Unauthorized
  | IdempotencyConflict
  | Cancelled
  | UpstreamRateLimited
  | UpstreamAuth
  | UpstreamUnavailable
  | ContentFiltered
  | ContextTooLong
  | UpstreamInvalid
  | ModelNotFound
  | NoRoute
  | BudgetExceeded
  | BudgetContended
  | BudgetClosed
  | BudgetUnknown
  | BudgetBusy
  | BudgetDenied
  | UnpricedModel
  | OutcomeUnknown
  | LedgerUnavailable
  | ConfigInvalid
  | -- | One that this module does not know: kinds may be added.
    OtherKind Text
  deriving (Eq, Ord, Read, Show)

kindOf :: Text -> Kind
kindOf name = fromMaybe (OtherKind name) (readMaybe (Text.unpack constructor))
  where
    constructor = Text.concat (map Text.toTitle (Text.splitOn "_" name))

-- ---------------------------------------------------------------------------------------------------------------------
-- Any other method

-- | Calls a method with these parameters and returns its result, both as the protocol has them.
call :: Client -> Text -> [Pair] -> IO Value
call client method params = exchange client method params Nothing

members :: ToJSON a => [(Text, a)] -> Value
members = object . map (\(name, value) -> Key.fromText name .= value)

readAs :: FromJSON a => Value -> IO a
readAs = readWith parseJSON

readWith :: (Value -> Parser a) -> Value -> IO a
readWith parser = either (throwIO . Unreadable) pure . parseEither parser

-- | One call, whose events are handled in this thread. Its id is also the token of its stream.
exchange :: Client -> Text -> [Pair] -> Maybe (Delta -> IO ()) -> IO Value
exchange client method params heard = mask $ \restore -> do
  this <- connection client
  begun <- begin this
  case begun of
    Nothing -> restore (exchange client method params heard) -- it has just broken, and nothing was sent
    Just (number, events) -> do
      ended <- (submit this number >> restore (follow events)) `onException` abandon this number
      either throwIO pure ended
  where
    submit this number = do
      let stream = ["stream" .= number | not (isNothing heard)]
          frame = message ["id" .= number, "method" .= method, "params" .= object (stream <> params)]
          bytes = fromIntegral (Lazy.length frame)
      when (bytes > optionFrameBytes (clientOptions client)) $ throwIO (Refused (tooLarge (clientOptions client)))
      writeChan (connectionOut this) (Just frame)
    follow events = do
      event <- readChan events
      case event of
        Heard delta -> mapM_ (readAs delta >>=) heard >> follow events
        Ended ended -> pure ended

tooLarge :: Options -> Failure
tooLarge chosen = Failure TooLarge False (-32003) "the request is longer than a message may be" (KeyMap.fromList limit)
  where
    limit = ["kind" .= ("too_large" :: Text), "retryable" .= False, "limit" .= optionFrameBytes chosen]

-- ---------------------------------------------------------------------------------------------------------------------
-- One connection

-- | A socket, the thread that writes to it and the one that reads from it. A thread that makes a call touches neither:
-- killed at any moment, it leaves no half message behind.
data Connection = Connection
  { -- | What is to be written; 'Nothing' is the end.
    connectionOut :: Chan (Maybe Lazy.ByteString),
    -- | The calls in flight; 'Nothing' once the connection is over.
    connectionCalls :: MVar (Maybe Calls),
    connectionSocket :: Socket,
    connectionOver :: MVar ()
  }

-- | How many there were so far, and where the events of those that are not over are waited for, by their ids.
data Calls = Calls Int Waiting

type Waiting = KeyMap.KeyMap (Chan Event)

waitingIn :: Maybe Calls -> Waiting
waitingIn = maybe KeyMap.empty (\(Calls _ waiting) -> waiting)

data Event = Heard Value | Ended (Either LLMError Value)

open :: Options -> IO Connection
open chosen = mask_ $ do
  socket <- maybe usualSockets (pure . pure) (optionSocket chosen) >>= reach
  this <- Connection <$> newChan <*> newMVar (Just (Calls 0 KeyMap.empty)) <*> pure socket <*> newEmptyMVar
  writer <- forkIO (broken (write this))
  this <$ forkIO (broken (frames (recv socket 65536) (deliver this)) `finally` end this writer)
  where
    broken = handle (\problem -> const (pure ()) (problem :: IOException))
    end this writer = do
      killThread writer
      Socket.close (connectionSocket this)
      calls <- swapMVar (connectionCalls this) Nothing
      forM_ (waitingIn calls) $ \events -> writeChan events (Ended (Left ConnectionLost))
      putMVar (connectionOver this) ()

write :: Connection -> IO ()
write this = readChan (connectionOut this) >>= maybe finish (\frame -> sendAll (connectionSocket this) frame >> write this)
  where
    finish = Socket.shutdown (connectionSocket this) ShutdownSend

-- | The next id and where its events will be, unless the connection is over.
begin :: Connection -> IO (Maybe (Key, Chan Event))
begin this = do
  events <- newChan
  modifyMVar (connectionCalls this) $ \held -> pure $ case held of
    Nothing -> (Nothing, Nothing)
    Just (Calls begun waiting) ->
      let number = Key.fromString (show begun)
       in (Just (Calls (begun + 1) (KeyMap.insert number events waiting)), Just (number, events))

-- | Takes a call out of those in flight.
taken :: Connection -> Key -> IO (Maybe (Chan Event))
taken this number = modifyMVar (connectionCalls this) $ \held -> pure $ case held of
  Nothing -> (Nothing, Nothing)
  Just (Calls begun waiting) -> (Just (Calls begun (KeyMap.delete number waiting)), KeyMap.lookup number waiting)

-- | Nobody waits for this call any more. Neither step waits for anything but other steps as short as these.
abandon :: Connection -> Key -> IO ()
abandon this number = uninterruptibleMask_ $ taken this number >>= mapM_ (const (cancel this number))

cancel :: Connection -> Key -> IO ()
cancel this number = writeChan (connectionOut this) (Just frame)
  where
    frame = message ["method" .= ("$/cancelRequest" :: Text), "params" .= object ["id" .= number]]

-- | Cancels the calls in flight, says that nothing more will come, and waits a moment for the daemon to have heard it.
leave :: Connection -> IO ()
leave this = do
  calls <- readMVar (connectionCalls this)
  mapM_ (cancel this) (KeyMap.keys (waitingIn calls))
  writeChan (connectionOut this) Nothing
  over <- timeout 2000000 (readMVar (connectionOver this))
  when (isNothing over) $ Socket.shutdown (connectionSocket this) ShutdownBoth `catch` gone
  where
    gone problem = const (pure ()) (problem :: IOException)

message :: [Pair] -> Lazy.ByteString
message those = encode (object (("jsonrpc" .= ("2.0" :: Text)) : those)) <> "\n"

-- | Hands on each line until nothing more is received. What is left of a line waits for its end in the pieces that it
-- came in.
frames :: IO Bytes.ByteString -> (Bytes.ByteString -> IO ()) -> IO ()
frames receive handleLine = go []
  where
    go held = do
      received <- receive
      let (whole, rest) = Bytes.breakEnd (== 10) received
      unless (Bytes.null received) $
        if Bytes.null whole
          then go (rest : held)
          else mapM_ handleLine (Lines.lines (Bytes.concat (reverse (whole : held)))) >> go [rest]

-- | One message of the daemon, to whom it is for.
deliver :: Connection -> Bytes.ByteString -> IO ()
deliver this line = case decodeStrict line of
  Just (Object said)
    | Just (String "llmd.delta") <- KeyMap.lookup "method" said,
      Just delta@(Object params) <- KeyMap.lookup "params" said,
      Just (String stream) <- KeyMap.lookup "stream" params -> do
      calls <- readMVar (connectionCalls this)
      mapM_ (`writeChan` Heard delta) (KeyMap.lookup (Key.fromText stream) (waitingIn calls))
    | Just (String number) <- KeyMap.lookup "id" said ->
      taken this (Key.fromText number) >>= mapM_ (`writeChan` Ended (either (Left . Unreadable) id (parseEither reply said)))
    | otherwise -> pure ()
  _ -> throwIO (userError "not a message of JSON-RPC")

reply :: Object -> Parser (Either LLMError Value)
reply said = maybe (Left . Refused <$> said .: "error") (pure . Right) (KeyMap.lookup "result" said)

-- ---------------------------------------------------------------------------------------------------------------------
-- Where the daemon is

-- | Connects to the first of these where somebody listens.
reach :: [FilePath] -> IO Socket
reach paths = go paths Nothing
  where
    go [] forbidden = throwIO (maybe (NoDaemon paths) Forbidden forbidden)
    go (path : others) forbidden = do
      attempt <- try (dial path)
      case attempt of
        Right socket -> pure socket
        Left problem | isPermissionError problem -> go others (Just (fromMaybe path forbidden))
        Left _ -> go others forbidden

dial :: FilePath -> IO Socket
dial path = do
  encoding <- getFileSystemEncoding
  bytes <- withCStringLen encoding path peekCAStringLen -- the network package takes each Char for a byte
  when (length bytes > 107) $ throwIO (userError "longer than the path of a socket may be")
  bracketOnError (Socket.socket AF_UNIX Stream 0) Socket.close $ \socket ->
    socket <$ Socket.connect socket (SockAddrUnix bytes)

-- | Where a daemon listens that was told nothing else, and last the one of the whole system.
usualSockets :: IO [FilePath]
usualSockets = do
  named <- variable "LLMD_SOCKET"
  runtime <- fmap absolute (variable "XDG_RUNTIME_DIR") >>= maybe ownRuntime (pure . Just)
  state <- absolute <$> variable "XDG_STATE_HOME"
  home <- fmap (<> "/.local/state") <$> variable "HOME"
  let own = firstOf [runtime, state, home]
  pure (maybe (map (<> "/llmd/rpc.sock") (own <> ["/run"])) pure named)
  where
    variable name = (>>= \value -> if null value then Nothing else Just value) <$> lookupEnv name
    absolute value = value >>= \path -> if take 1 path == "/" then Just path else Nothing
    firstOf = take 1 . catMaybes

-- | @/run/user/$UID@, where it is ours: nobody else can write there.
ownRuntime :: IO (Maybe FilePath)
ownRuntime = do
  path <- ("/run/user/" <>) . show <$> c_getuid
  refused <- withCString path (`c_access` 2)
  pure (if refused == 0 then Just path else Nothing)

foreign import ccall unsafe "getuid" c_getuid :: IO CUInt

foreign import ccall unsafe "access" c_access :: CString -> CInt -> IO CInt
