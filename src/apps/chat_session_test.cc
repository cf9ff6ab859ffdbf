#include "apps/chat_session.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "apps/engine_options.h"
#include "apps/random_model.h"
#include "base/error.h"

namespace toaster {
namespace {

class ChatSessionTest : public testing::Test {
 protected:
  ChatSessionTest() {
    engine_.model = test::RandomModel();
    engine_.backend.threads = 1;
    running_ = StartModel(engine_);
    options_.max_tokens = 12;
    options_.sampling.seed = 7;
    // No control token: the model is random, and one out of place would be dropped from the text.
    for (int32_t token = 0; token < 278; ++token) {
      if (token < 3 || token > 258) options_.sampling.logit_bias[token] = -1000;
    }
  }
  ChatSession NewChat(std::vector<std::string> stop = {}) {
    return {*running_,
            ModelTokenizer(engine_, running_->loaded()),
            PromptTexts("nowhere"),
            64,
            options_,
            std::move(stop)};
  }
  static Generated Say(ChatSession& chat, const std::string& text) {
    chat.AddUserMessage(text);
    return chat.Reply({}, [](const ReplyEvent&) {});
  }

  EngineOptions engine_;
  std::unique_ptr<RunningModel> running_;
  GenerateOptions options_;
};

TEST_F(ChatSessionTest, ATurnReusesTheOneBefore) {
  ChatSession chat = NewChat();
  const Generated first = Say(chat, "abc");
  EXPECT_EQ(first.reused_tokens, 0);
  EXPECT_EQ(first.prompt_tokens, 7);  // BOS, User, three bytes, Assistant, </think>
  EXPECT_EQ(first.reply.size(), 12u);
  const Generated second = Say(chat, "d");
  // The last token sampled was not computed; the end of text, User, a byte, Assistant, </think>
  // follow it.
  EXPECT_EQ(second.reused_tokens, 7 + 11);
  EXPECT_EQ(second.prompt_tokens, 7 + 12 + 5);
  EXPECT_EQ(second.read_tokens, 6);
}

TEST_F(ChatSessionTest, DroppedReasoningCostsOnlyWhatFollowedIt) {
  ChatSession chat = NewChat();
  chat.SetThinking(true, Effort::kNone);
  const Generated first = Say(chat, "abc");
  EXPECT_EQ(chat.reasoning_tokens(), 12);
  EXPECT_NE(chat.conversation().messages[1].reasoning, "");
  EXPECT_EQ(chat.conversation().messages[1].content, "");
  // BOS, User, three bytes, Assistant: <think> becomes </think>.
  EXPECT_EQ(Say(chat, "d").reused_tokens, 6);
  // Kept reasoning extends it.
  Conversation kept = chat.conversation();
  kept.messages.clear();
  kept.keep_reasoning = true;
  chat.SetConversation(kept);
  Say(chat, "abc");
  EXPECT_EQ(Say(chat, "d").reused_tokens, 7 + 11);
}

TEST_F(ChatSessionTest, AStoppedReplyStays) {
  ChatSession chat = NewChat();
  chat.AddUserMessage("abc");
  int asked = 0;
  GenerateHooks hooks;
  hooks.interrupted = [&] { return ++asked > 4; };
  const Generated stopped = chat.Reply(hooks, [](const ReplyEvent&) {});
  EXPECT_EQ(stopped.end, GenerateEnd::kInterrupted);
  ASSERT_EQ(chat.conversation().messages.size(), 2u);
  EXPECT_EQ(Say(chat, "d").reused_tokens,
            stopped.prompt_tokens + static_cast<int64_t>(stopped.reply.size()));
}

TEST_F(ChatSessionTest, APromptThatWasStoppedIsReadOn) {
  ChatSession chat = NewChat();
  chat.AddUserMessage(std::string(300, 'a'));
  GenerateHooks hooks;
  // Asked after every layer: this is in the second chunk.
  int64_t asked = 0;
  hooks.interrupted = [&] { return ++asked > running_->config().num_hidden_layers; };
  const Generated stopped = chat.Reply(hooks, [](const ReplyEvent&) {});
  EXPECT_EQ(stopped.end, GenerateEnd::kInterruptedPrompt);
  EXPECT_EQ(stopped.read_tokens, 64);
  EXPECT_EQ(chat.conversation().messages.size(), 1u);
  EXPECT_EQ(Say(chat, "b").reused_tokens, 64);
}

TEST_F(ChatSessionTest, StopStringsEndAnswers) {
  ChatSession chat = NewChat();
  Say(chat, "abc");
  const std::string answer = chat.conversation().messages[1].content;
  // A character of one byte, since random bytes that are no character are shown as something else.
  const auto found =
      std::find_if(answer.begin(), answer.end(), [](char c) { return c > ' ' && c < 0x7F; });
  ASSERT_NE(found, answer.end()) << answer;
  const auto place = static_cast<size_t>(found - answer.begin());
  ChatSession stopping = NewChat({answer.substr(place, 1)});
  EXPECT_EQ(Say(stopping, "abc").end, GenerateEnd::kStopped);
  EXPECT_EQ(stopping.conversation().messages[1].content, answer.substr(0, place));
}

TEST_F(ChatSessionTest, MessagesCanBeChanged) {
  ChatSession chat = NewChat();
  EXPECT_FALSE(chat.Undo());
  chat.SetSystem("Be brief.");
  chat.SetSystem("Be kind.");
  Say(chat, "abc");
  chat.AddUserMessage("d");
  EXPECT_EQ(chat.conversation().messages.size(), 4u);
  EXPECT_TRUE(chat.Undo());
  EXPECT_TRUE(chat.Undo());
  ASSERT_EQ(chat.conversation().messages.size(), 1u);
  EXPECT_EQ(chat.conversation().messages[0].content, "Be kind.");
  chat.AddUserMessage("e");
  chat.Clear();
  EXPECT_EQ(chat.conversation().messages.size(), 1u);
  chat.SetSystem("");
  EXPECT_TRUE(chat.conversation().messages.empty());
}

TEST_F(ChatSessionTest, AnEffortWithoutItsTextChangesNothing) {
  ChatSession chat = NewChat();
  EXPECT_THROW(chat.SetThinking(true, Effort::kMax), Error);
  EXPECT_FALSE(chat.conversation().thinking);
}

}  // namespace
}  // namespace toaster
