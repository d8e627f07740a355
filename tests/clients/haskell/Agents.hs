{-# LANGUAGE OverloadedStrings #-}

-- |
-- What a web application does with llmd: one client for all of its requests, and for each request a budget, from which
-- three agents work at once. The planner spends from the budget itself; the writer and the critic got smaller ones below
-- it. The critic wants more than it was given, is told so, and ends with what it has; nobody else notices.
--
-- @Agents MODEL@ answers one such request: a line of JSON for each agent, and one for the budget.
module Main (main) where

import Control.Concurrent (forkIOWithUnmask, killThread)
import Control.Concurrent.MVar (newEmptyMVar, putMVar, readMVar)
import Control.Exception (SomeException, bracket, throwIO, try)
import Data.Aeson (Value (..), encode, object, (.=))
import qualified Data.Aeson.KeyMap as KeyMap
import qualified Data.ByteString.Lazy.Char8 as Lazy
import Data.Maybe (fromMaybe)
import Data.Text (Text)
import qualified Data.Text as Text
import LLMD
import System.Environment (getArgs)

-- | The client lives as long as the program, each budget as long as its request.
main :: IO ()
main = do
  arguments <- getArgs
  withClient $ \llmd -> respond llmd (Text.pack (unwords arguments)) >>= mapM_ (Lazy.putStrLn . encode)

-- | One request of the application.
respond :: Client -> Text -> IO [Value]
respond llmd model =
  withBudget llmd (allowing 200 "planner") $ \whole ->
    withBudget llmd (allowing 100 "writer") {termsParent = Just whole} $ \writers ->
      withBudget llmd (allowing 50 "critic") {termsParent = Just whole} $ \critics -> do
        reports <-
          atOnce
            [ agent llmd model whole "planner" "Plan a story about a cat.",
              agent llmd model writers "writer" "Tell a story about a cat.",
              agent llmd model critics "critic" "What is wrong with a story about a cat?"
            ]
        spent <- readBudget llmd whole
        let settled unit = fromMaybe 0 (lookup unit (snapshotSettled spent))
        pure (reports <> [object ["requests" .= settled "requests", "output_tokens" .= settled "output_tokens"]])

-- | A budget of so many tokens of answers.
allowing :: Int -> Text -> Terms
allowing tokens label = (total 20000) {termsLimits = limits, termsLabel = Just label}
  where
    limits = [("output_tokens", tokens), ("total_tokens", 20000)]

-- | Three turns of one conversation, each of 20 tokens, or as many of them as the budget pays for.
agent :: Client -> Text -> Budget -> Text -> Text -> IO Value
agent llmd model budget name task = go [] [user task]
  where
    go answers turns
      | length answers == 3 = pure (report answers Null)
      | otherwise = do
        tried <- try (execute llmd (turn turns))
        case tried of
          Right answer -> go (answers <> [answer]) (turns <> [answerMessage answer, user "Go on."])
          Left (Refused failure) | failureKind failure == BudgetExceeded -> pure (report answers (shortage failure))
          Left other -> throwIO other
    turn turns =
      (ask "")
        { askMessages = turns,
          askModel = Just model,
          askBudget = Just budget,
          askMaxTokens = Just 20,
          askTemperature = Just 0
        }
    report answers stopped =
      object ["agent" .= name, "answers" .= map answerText answers, "stopped" .= stopped]
    shortage failure = Object (KeyMap.filterWithKey (\key _ -> key `elem` told) (failureData failure))
    told = ["kind", "requested", "available", "max_tokens"]

-- | Runs them all at once, each in a thread of its own, and returns what they return. Where one throws, or the thread
-- that waits here is killed, the others are killed, and their calls with them.
atOnce :: [IO a] -> IO [a]
atOnce actions = bracket (mapM start actions) (mapM_ (killThread . fst)) (mapM (finished . snd))
  where
    start action = do
      result <- newEmptyMVar
      thread <- forkIOWithUnmask $ \unmask -> try (unmask action) >>= putMVar result
      pure (thread, result)
    finished result = readMVar result >>= either (throwIO :: SomeException -> IO a) pure
