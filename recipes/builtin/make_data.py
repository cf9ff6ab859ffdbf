#!/usr/bin/env python3
"""Makes the training texts and the held-out cases of the built-in model.

    make_data.py VERSES OUT [--scale 1.0] [--seed 0]

VERSES is the King James Bible, a verse per line, as `bible -f 'Ge1:1-Re22:21'` prints it. OUT gets

    base/       texts to continue: chapters, and lists and words that are repeated
    instruct/   conversations, as chat requests with all answers
    heldout/    a text, and cases for `toaster eval --tasks`, of the same kinds

A case is held out if the digest of what it is about (two numbers and an operation, a pass key, a person's facts) says so, and whole
books of the Bible are. So nothing held out is ever trained on, whatever the seed and the scale. The same arguments give the same files.
Needs nothing but Python's standard library.
"""
import argparse
import hashlib
import json
import os
import random
import re

HELD_OUT_BOOKS = {"Ruth", "Jonah", "Mark"}
NAMES = "Ada Ben Cara Dan Emma Finn Gina Hugo Iris Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tess Vera".split()
COLOURS = "red blue green yellow black white brown grey".split()
PETS = "cat dog bird fish horse rabbit goat mouse".split()
CITIES = "Oslo Rome Paris Lima Cairo Delhi Tokyo Quito".split()
FOODS = "bread soup rice cheese apples honey beans cake".split()
WORDS = NAMES + COLOURS + PETS + CITIES + FOODS
NOUNS = "cup door lamp river stone garden window table road letter hill boat".split()
ADJECTIVES = "small old quiet green cold bright long round".split()
VERBS = "stands lies waits rests shines stays".split()
PLACES = ["in the house", "by the sea", "near the wall", "under the tree", "on the hill", "behind the mill"]
CALCULATOR = {"type": "function", "function": {
    "name": "calculator", "description": "Computes.",
    "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}}}
SYSTEMS = ["You are a helpful assistant.", "Be brief.", "Answer the user."]
SMALL_TALK = {
    "Hello!": "Hello! What can I do for you?", "Hi": "Hello! What can I do for you?",
    "Who are you?": "I am Toaster, a very small model.", "What is your name?": "My name is Toaster.",
    "What can you do?": "I remember what you say, repeat words, count, write JSON, find numbers and use a calculator.",
    "How are you?": "I am warm, thank you.", "Thank you!": "You are welcome.", "Thanks": "You are welcome.",
    "Goodbye!": "Goodbye!", "Are you a person?": "No, I am a program.", "Tell me a joke.": "I know no jokes, only bread.",
    "What is a cache?": "I do not know much. Ask me to count or to calculate."}
FACTS = {"name": NAMES, "city": CITIES, "pet": PETS, "colour": COLOURS, "food": FOODS}


def held_out(about):
    """One case in sixteen, by what it is about; never what is about nothing."""
    return about is not None and hashlib.sha256(repr(about).encode()).digest()[0] < 16


def user(text):
    return {"role": "user", "content": text}


def answer(content, reasoning=""):
    message = {"role": "assistant", "content": content}
    if reasoning:
        message["reasoning_content"] = reasoning
    return message


class Case:
    """A conversation with its last answer, what it is about, and how `toaster eval` checks the answer."""

    def __init__(self, about, messages, check, tools=None, response_format=None, thinking=False):
        self.about, self.messages, self.check = about, messages, check
        self.request = {"thinking": thinking}
        if tools:
            self.request["tools"] = tools
        if response_format:
            self.request["response_format"] = response_format

    def training_line(self):
        return {"messages": self.messages, **self.request}

    def task_line(self, group):
        """Up to where the model has to answer: the last user message."""
        last = max(i for i, message in enumerate(self.messages) if message["role"] == "user")
        group += ", thinking" if self.request["thinking"] else ""
        return {"messages": self.messages[:last + 1], **self.request, "check": self.check, "group": group}


# --- calculations, by a call of the tool ---

OPERATIONS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def operands(rng):
    operation = rng.choice("+-*/")
    if operation in "+-":
        a, b = rng.randrange(2, 1000), rng.randrange(2, 1000)
        return operation, max(a, b), min(a, b)
    a, b = rng.randrange(2, 100), rng.randrange(2, 100)
    return (operation, a, b) if operation == "*" else (operation, a * b, b)


def calculation(rng, thinking):
    operation, a, b = operands(rng)
    expression = f"{a}{operation}{b}"
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operation]
    words = f"{a} {OPERATIONS[operation]} {b}"
    name = rng.choice(NAMES)
    stories = {"+": f"{name} has {a} apples and gets {b} more. How many apples does {name} have?",
               "-": f"{name} has {a} apples and gives {b} away. How many apples does {name} have?",
               "*": f"{name} has {a} boxes of {b} apples. How many apples does {name} have?",
               "/": f"{name} puts {a} apples into {b} boxes. How many apples are in a box?"}
    question = rng.choice([f"What is {words}?", f"How much is {words}?", f"Compute {words}.", f"What is {expression}?",
                           stories[operation]])
    call = {"role": "assistant", "content": "", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "calculator",
                                                      "arguments": json.dumps({"expression": expression})}}]}
    if thinking:
        call["reasoning_content"] = f"I need {expression}."
    messages = [user(question), call, {"role": "tool", "tool_call_id": "1", "content": str(result)},
                answer(f"The result is {result}.", f"The calculator says {result}." if thinking else "")]
    return Case(("calculation", operation, a, b), messages, {"kind": "calculator", "expression": expression},
                tools=[CALCULATOR], thinking=thinking)


# --- answers in JSON ---

def schema_of(value):
    types = {str: "string", int: "integer"}
    schema = {"type": "object", "properties": {key: {"type": types[type(item)]} for key, item in value.items()}}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def json_answer(rng, thinking):
    if rng.random() < 0.25:
        value = rng.sample(WORDS, rng.randrange(2, 5))
        question = f"Write {', '.join(value[:-1])} and {value[-1]} as a JSON list."
        response_format = None
    else:
        person = {"name": rng.choice(NAMES), "age": rng.randrange(2, 100), "city": rng.choice(CITIES)}
        text = f"{person['name']} is {person['age']} years old and lives in {person['city']}."
        keys = rng.choice([["name", "age"], ["name", "city"], ["age", "city"], ["name", "age", "city"], ["city", "name"]])
        value = {key: person[key] for key in keys}
        wanted = ", ".join(keys[:-1]) + " and " + keys[-1]
        response_format = schema_of(value) if rng.random() < 0.3 else None
        if rng.random() < 0.5:
            question = f"{text} Give me JSON with {wanted}."
        else:
            question = f"Answer in JSON with {wanted}: {text}"
    messages = [user(question), answer(json.dumps(value), "The answer has to be JSON." if thinking else "")]
    about = ("json", json.dumps(value, sort_keys=True))  # the order of keys makes no other case
    return Case(about, messages, {"kind": "json", "value": value}, response_format=response_format, thinking=thinking)


# --- short conversations ---

def sentence_of(fact, value):
    return {"name": f"My name is {value}.", "city": f"I live in {value}.", "pet": f"I have a {value}.",
            "colour": f"I like the colour {value}.", "food": f"I like to eat {value}."}[fact]


def question_of(fact, value):
    return {"name": ("What is my name?", f"Your name is {value}."),
            "city": ("Where do I live?", f"You live in {value}."),
            "pet": ("Which pet do I have?", f"You have a {value}."),
            "colour": ("Which colour do I like?", f"You like the colour {value}."),
            "food": ("What do I like to eat?", f"You like to eat {value}.")}[fact]


def some_facts(rng, count):
    facts = {fact: rng.choice(FACTS[fact]) for fact in rng.sample(list(FACTS), count)}
    return facts, [sentence_of(fact, value) for fact, value in facts.items()]


def told(sayings, thinking):
    messages = []
    for saying in sayings:
        messages += [user(saying), answer("I see.", "I keep it in mind." if thinking else "")]
    return messages


def telling(rng, thinking):
    """The user says some things; for training only, since earlier turns are rendered without their reasoning."""
    return Case(None, told(some_facts(rng, rng.randrange(1, 4))[1], thinking), {"kind": "text", "answer": "I see."},
                thinking=thinking)


def memory(rng, thinking):
    """The user says some things and asks for one of them, at once or turns later."""
    facts, sayings = some_facts(rng, rng.randrange(2, 5))
    asked = rng.choice(list(facts))
    question, reply = question_of(asked, facts[asked])
    if rng.random() < 0.5:
        messages = [user(" ".join(sayings) + " " + question)]
    else:
        messages = told(sayings, thinking) + [user(question)]
    messages.append(answer(reply, "The user said: " + sentence_of(asked, facts[asked]) if thinking else ""))
    return Case(("memory", asked, sorted(facts.items())), messages, {"kind": "text", "answer": reply}, thinking=thinking)


def echo(rng, thinking):
    words = " ".join(rng.sample(WORDS, rng.randrange(2, 5)))
    messages = [user(rng.choice(["Say: ", "Repeat: "]) + words),
                answer(words, "I say the words again." if thinking else "")]
    return Case(("echo", words), messages, {"kind": "text", "answer": words}, thinking=thinking)


def counting(rng, thinking):
    first = rng.randrange(1, 90)
    last = first + rng.randrange(2, 8)
    reply = ", ".join(str(number) for number in range(first, last + 1))
    messages = [user(f"Count from {first} to {last}."), answer(reply, f"I stop at {last}." if thinking else "")]
    return Case(("counting", first, last), messages, {"kind": "text", "answer": reply}, thinking=thinking)


def greeting(rng, thinking):
    name = rng.choice(NAMES)
    hello = rng.choice(["Hello", "Hi", "Good morning", "Good evening"])
    second = rng.choice(CITIES)
    reply = f"{hello}, {name}! How is {second}?"
    messages = [user(f"{hello}! I am {name} from {second}."),
                answer(reply, f"{name} greets me." if thinking else "")]
    return Case(("greeting", hello, name, second), messages, {"kind": "text", "answer": reply}, thinking=thinking)


def chat(rng, thinking):
    case = rng.choice([memory, memory, echo, counting, greeting])(rng, thinking)
    if rng.random() < 0.1:  # tools that are there are not always called
        case.request["tools"] = [CALCULATOR]
    if rng.random() < 0.15:
        case.messages.insert(0, {"role": "system", "content": rng.choice(SYSTEMS)})
    return case


def small_talk(rng, thinking):
    if rng.random() < 0.5:
        return telling(rng, thinking)
    question = rng.choice(list(SMALL_TALK))
    messages = [user(question), answer(SMALL_TALK[question], "This is small talk." if thinking else "")]
    return Case(None, messages, {"kind": "text", "answer": SMALL_TALK[question]}, thinking=thinking)


def several_turns(rng, thinking):
    """Two or three things after each other in one conversation; for training only."""
    messages, tools = [], None
    for _ in range(rng.randrange(2, 4)):
        part = rng.choice([chat, small_talk, calculation, json_answer])(rng, thinking)
        if held_out(part.about):
            return Case(part.about, [], None)
        tools = tools or part.request.get("tools")
        messages += [message for message in part.messages if message["role"] != "system"]
    return Case(None, messages, None, tools=tools, thinking=thinking)


# --- pass keys in long contexts ---

def filler_sentence(rng):
    if rng.random() < 0.1:
        return f"House {rng.randrange(2, 100)} is empty."
    return f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.choice(PLACES)}."


def filler(rng, words):
    sentences = []
    while words > 0:
        sentences.append(filler_sentence(rng))
        words -= len(sentences[-1].split()) + 1
    return sentences


def hidden_sentence(name, key):
    return f"The number of {name} is {key}." if name else f"The pass key is {key}. Remember it: {key} is the pass key."


def key_question(name, key):
    """The question for a number and its answer; without a name it is the pass key."""
    if name:
        return f"What is the number of {name}?", f"The number of {name} is {key}."
    return "What is the pass key?", f"The pass key is {key}."


def passkey(rng, thinking, tokens):
    """A context of about `tokens` tokens: a word and a full stop are one each."""
    key = str(rng.randrange(10000, 100000))
    people = [None]
    if rng.random() >= 0.6:  # several numbers, so that the name has to be looked up
        people = rng.sample(NAMES, rng.randrange(2, 4))
    numbers = [key] + [str(rng.randrange(10000, 100000)) for _ in people[1:]]
    hidden = [hidden_sentence(name, number) for name, number in zip(people, numbers)]
    question, reply = key_question(people[0], key)
    sentences = filler(rng, max(1, tokens - 24 - 12 * len(hidden)))
    for sentence in hidden:
        sentences.insert(rng.randrange(len(sentences) + 1), sentence)
    messages = [user(" ".join(sentences) + "\n\n" + question), answer(reply, f"I look for it: {key}." if thinking else "")]
    return Case(("passkey", key), messages, {"kind": "passkey", "answer": key}, thinking=thinking)


def several_keys(rng, tokens):
    """Like `passkey`, but asked for every number, a turn each: a long text is read once and teaches several times."""
    names = [None] + rng.sample(NAMES, rng.randrange(2, 7))
    keys = {name: str(rng.randrange(10000, 100000)) for name in names}
    sentences = filler(rng, max(1, tokens - 24 * len(names)))
    for name, key in keys.items():
        sentences.insert(rng.randrange(len(sentences) + 1), hidden_sentence(name, key))
    rng.shuffle(names)
    messages = []
    for name in names:
        question, reply = key_question(name, keys[name])
        messages += [user(question), answer(reply)]
    messages[0]["content"] = " ".join(sentences) + "\n\n" + messages[0]["content"]
    about = next((("passkey", key) for key in keys.values() if held_out(("passkey", key))), None)
    return Case(about, messages, None)


# --- texts of the base model ---

def chapters(verses):
    """(book, text of a chapter), in order."""
    current, lines = None, []
    for verse in verses:
        match = re.match(r"([1-3]?[A-Za-z]+)(\d+):\d+ (.*)", verse)
        if not match:
            raise SystemExit(f"not a verse: {verse[:60]!r}; make VERSES with: bible -f 'Ge1:1-Re22:21'")
        place = match.group(1), match.group(2)
        if place != current and lines:
            yield current[0], " ".join(lines)
            lines = []
        current = place
        lines.append(match.group(3))
    if lines:
        yield current[0], " ".join(lines)


def repeated_list(rng, longest):
    """Names with numbers, then the same in another order: every number of the second half can be looked up."""
    count = rng.randrange(2, longest)
    entries = {f"{a} {b}" for a, b in ((rng.choice(NAMES), rng.choice(COLOURS + NOUNS)) for _ in range(count))}
    lines = [f"{entry} {rng.randrange(10000, 100000)}." for entry in sorted(entries)]
    rng.shuffle(lines)
    first = " ".join(lines)
    rng.shuffle(lines)
    return f"{first}\nAgain: {' '.join(lines)}"


def repeated_words(rng, longest):
    """Words, then the same words in the same order: copying, with every word of the second half to learn from."""
    words = " ".join(rng.choice(WORDS + NOUNS + ADJECTIVES) for _ in range(rng.randrange(3, longest)))
    return f"{words}.\nAgain: {words}."


# --- files ---

def write_lines(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def cases_of(make, count, rng, wanted_held_out):
    """`count` cases, of one side; held-out ones differ from each other."""
    cases, seen = [], set()
    while len(cases) < count:
        case = make(rng, rng.random() < 0.5)
        if held_out(case.about) != wanted_held_out or (wanted_held_out and repr(case.about) in seen):
            continue
        seen.add(repr(case.about))
        cases.append(case)
    return cases


def make_base(verses, out, count, rng):
    kept, left = [], []
    for book, text in chapters(verses):
        (left if book in HELD_OUT_BOOKS else kept).append(text)
    write_lines(f"{out}/base/bible.jsonl", [{"text": text} for text in kept])
    os.makedirs(f"{out}/heldout", exist_ok=True)
    with open(f"{out}/heldout/bible.txt", "w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(left) + "\n")
    write_lines(f"{out}/base/words.jsonl", [{"text": repeated_words(rng, 60)} for _ in range(int(count * 0.4))])
    for name, longest, share in [("short", 6, 0.5), ("middle", 16, 0.2), ("long", 64, 0.05)]:
        write_lines(f"{out}/base/lists_{name}.jsonl",
                    [{"text": repeated_list(rng, longest)} for _ in range(int(count * share))])


def make_conversations(out, window, count, cases, rng):
    def passkeys(shortest, longest):
        return lambda r, thinking: passkey(r, thinking, r.randrange(shortest, longest))

    def several(shortest, longest):
        return lambda r, thinking: several_keys(r, r.randrange(shortest, longest))

    for name, make, share in [("chat", chat, 1.0), ("small_talk", small_talk, 0.2), ("several_turns", several_turns, 0.5),
                              ("calculator", calculation, 1.0), ("json", json_answer, 0.8),
                              ("passkey_short", passkeys(40, 4 * window), 1.0),
                              ("passkey_long", passkeys(4 * window, 17 * window), 0.25),
                              ("keys_short", several(40, 4 * window), 0.5),
                              ("keys_long", several(4 * window, 17 * window), 0.25)]:
        lines = [case.training_line() for case in cases_of(make, max(1, int(count * share)), rng, False)]
        write_lines(f"{out}/instruct/{name}.jsonl", lines)
    for name, make in [("chat", chat), ("calculator", calculation), ("json", json_answer)]:
        held = cases_of(make, cases, rng, True)
        write_lines(f"{out}/heldout/{name}.jsonl", [case.task_line(name) for case in held])
    for times in [1, 2, 4, 8, 16]:
        held = cases_of(passkeys(times * window, times * window + 1), cases, rng, True)
        write_lines(f"{out}/heldout/passkey_{times}.jsonl",
                    [case.task_line(f"passkey, {times} windows") for case in held])
    with open(f"{out}/heldout/filler.txt", "w", encoding="utf-8", newline="\n") as file:
        file.write("".join(filler_sentence(rng) + "\n" for _ in range(500)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verses")
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the training data, 1 for the whole recipe")
    parser.add_argument("--cases", type=int, default=200, help="held-out cases of each kind")
    parser.add_argument("--window", type=int, default=64, help="the model's sliding window in tokens")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with open(options.verses, encoding="utf-8") as file:
        verses = [line.strip() for line in file if line.strip()]
    make_base(verses, options.out, int(40000 * options.scale), rng)
    make_conversations(options.out, options.window, int(20000 * options.scale), options.cases, rng)


if __name__ == "__main__":
    main()
