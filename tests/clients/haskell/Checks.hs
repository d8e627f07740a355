{-# LANGUAGE OverloadedStrings #-}

-- |
-- What the tests have "LLMD" do: one behaviour for each name. Says on standard output how far it is, a line at a time,
-- and where it waits for the test, it waits for a line on standard input.
module Main (main) where

import Control.Concurrent (forkFinally, forkIO, killThread)
import Control.Concurrent.MVar (newEmptyMVar, putMVar, takeMVar)
import Control.Exception (bracket, throwIO, try)
import Control.Monad (forM, forM_, replicateM_, void)
import Data.Aeson (Value, encode, object, toJSON, (.=))
import qualified Data.ByteString.Lazy.Char8 as Lazy
import Data.IORef (modifyIORef, newIORef, readIORef)
import Data.Text (Text)
import qualified Data.Text as Text
import LLMD
import System.Environment (getArgs)
import System.IO (BufferMode (LineBuffering), hSetBuffering, stdout)
import System.Timeout (timeout)

main :: IO ()
main = do
  hSetBuffering stdout LineBuffering
  arguments <- getArgs
  case arguments of
    ["where"] -> nobody
    ["many", threads, connections, words_] -> many (read threads) (read connections) (read words_)
    ["together", calls] -> together (read calls)
    ["streams", streams] -> streamed (read streams)
    ["callback"] -> withClient throwingCallback
    ["budget"] -> withClient budgetOfAnException
    ["opening"] -> withClient budgetOfAKilledThread
    ["errors"] -> withClient typedErrors
    ["killed"] -> one killedThread
    ["leaving"] -> withClient leaving
    ["gone"] -> one daemonGone
    _ -> fail "no such behaviour"

-- | With a single connection.
one :: (Client -> IO a) -> IO a
one = bracket (connect options {optionConnections = 1}) disconnect

asking :: Text -> Ask
asking prompt = (ask prompt) {askModel = Just "up/m1"}

number :: Int -> Text
number = Text.pack . show

printed :: Value -> IO ()
printed = Lazy.putStrLn . encode

-- | Runs each in a thread of its own, and waits for all.
atOnce :: [IO a] -> IO [a]
atOnce actions = do
  running <- forM actions $ \action -> do
    result <- newEmptyMVar
    result <$ forkFinally action (putMVar result)
  forM running $ \result -> takeMVar result >>= either throwIO pure

-- | Where a daemon was looked for.
nobody :: IO ()
nobody = do
  found <- try (withClient (const (pure ())))
  case found of
    Left (NoDaemon tried) -> printed (toJSON tried)
    other -> print other

-- | So many threads use one client; each has to get its own answer, which says what it asked so many times.
many :: Int -> Int -> Int -> IO ()
many threads connections times = bracket (connect options {optionConnections = connections}) disconnect $ \llmd -> do
  answers <- atOnce [answerText <$> execute llmd (asking (number thread)) | thread <- [1 .. threads]]
  print (answers == [Text.unwords (replicate times (number thread)) | thread <- [1 .. threads]])

-- | The same as one group, in which every third call asks for a model that is not there.
together :: Int -> IO ()
together calls = withClient $ \llmd -> do
  let each call_ = (asking (number call_)) {askModel = Just (if call_ `mod` 3 == 0 then "nobody/m" else "up/m1")}
  results <- executeMany llmd (map each [1 .. calls])
  forM_ results $ putStrLn . either (show . failureKind) (Text.unpack . answerText)

-- | Streams at once on one connection. Each callback makes a call of its own, too.
streamed :: Int -> IO ()
streamed streams = one $ \llmd -> do
  reports <- atOnce $ flip map [1 .. streams] $ \stream -> do
    heard <- newIORef []
    answer <- executeStreaming llmd (asking (number stream)) $ \delta -> do
      _ <- call llmd "ping" []
      modifyIORef heard (delta :)
    deltas <- reverse <$> readIORef heard
    let texts = [text | TextPiece text <- map deltaPiece deltas]
    pure (object ["seqs" .= map deltaSeq deltas, "texts" .= texts, "text" .= answerText answer])
  mapM_ printed reports

throwingCallback :: Client -> IO ()
throwingCallback llmd = do
  ended <- try (executeStreaming llmd (asking "x") (\_ -> fail "enough"))
  putStrLn (either (\problem -> "threw: " <> show (problem :: IOError)) (const "returned") ended)
  void getLine

-- | A function that throws while a thread that it began still spends from the budget.
budgetOfAnException :: Client -> IO ()
budgetOfAnException llmd = do
  ended <- try $ withBudget llmd (total 100000) {termsLabel = Just "failing"} $ \budget -> do
    print budget
    spending <- newEmptyMVar
    _ <- forkIO (try (execute llmd (asking "x") {askBudget = Just budget}) >>= putMVar spending)
    _ <- getLine
    _ <- forkIO $ takeMVar spending >>= either (putStrLn . kindName) (const (putStrLn "answered"))
    fail "no more" :: IO ()
  putStrLn (either (\problem -> "threw: " <> show (problem :: IOError)) (const "returned") ended)
  void getLine

-- | Killed at any moment, a thread leaves no budget open.
budgetOfAKilledThread :: Client -> IO ()
budgetOfAKilledThread llmd = do
  whole <- openBudget llmd (total 1000)
  forM_ [0, 20 .. 3000] $ \microseconds ->
    timeout microseconds $ withBudget llmd (total 1) {termsParent = Just whole} $ \_ -> void getLine
  putStrLn (Text.unpack (budgetId whole))
  void getLine

kindName :: LLMError -> String
kindName (Refused failure) = show (failureKind failure)
kindName other = show other

typedErrors :: Client -> IO ()
typedErrors llmd = do
  budget <- openBudget llmd (total 100)
  told (execute llmd (asking "x") {askBudget = Just budget, askMaxTokens = Just 5000})
  told (execute llmd (ask "x") {askModel = Just "nobody/m"})
  told (execute llmd (asking "x") {askMore = [("promt", "x")]})
  told (execute llmd (asking "limited"))
  told (execute llmd (asking (Text.replicate (17 * 1024 * 1024) "x")))
  told (call llmd "fly" [])
  where
    told :: IO a -> IO ()
    told action = try action >>= either report (const (putStrLn "returned"))
    report (Refused failure) =
      printed $
        object
          [ "kind" .= show (failureKind failure),
            "retryable" .= failureRetryable failure,
            "code" .= failureCode failure,
            "data" .= failureData failure
          ]
    report other = print other

-- | Killed while its call is in flight; its client goes on.
killedThread :: Client -> IO ()
killedThread llmd = do
  ended <- newEmptyMVar
  thread <- forkFinally (execute llmd (asking "held")) (putMVar ended)
  _ <- getLine
  killThread thread
  takeMVar ended >>= putStrLn . either (("killed: " <>) . show) (const "answered")
  _ <- getLine
  timed <- timeout 10000 (execute llmd (asking "held"))
  putStrLn (maybe "out of time" (const "answered") timed)
  execute llmd (asking "free") >>= putStrLn . Text.unpack . answerText
  void getLine

-- | Goes away while a call is in flight that would outlive its connection.
leaving :: Client -> IO ()
leaving llmd = do
  _ <- forkIO $ do
    ended <- try (execute llmd (asking "held") {askIdempotencyKey = Just "k"})
    putStrLn (either kindName (const "answered") ended)
  void getLine

-- | The daemon dies while a call is in flight, is away for a while, and is there again.
daemonGone :: Client -> IO ()
daemonGone llmd = replicateM_ 3 $ do
  ended <- try (execute llmd (asking "held"))
  putStrLn (either (\problem -> kindName problem <> " " <> show (retryable problem)) (Text.unpack . answerText) ended)
  void getLine
