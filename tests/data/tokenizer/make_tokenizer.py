#!/usr/bin/env python3
"""Makes the test tokenizer and the sample text beside this script.

    python3 tests/data/tokenizer/make_tokenizer.py

tokenizer.json has the shape of DeepSeek's (same splits, same kinds of tokens) with a vocabulary of
some 1,200 entries trained on sample.txt, whose sentences are ours. expected_ids.txt is made by
another program from both: see make_expected_ids.mjs.
"""
import collections
import json
import os
import random

HERE = os.path.dirname(os.path.abspath(__file__))
MERGES = 900
CONTROL_FRONT = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
CONTROL_BACK = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜User｜>", "<｜Assistant｜>", "<|EOT|>", "<think>",
                "</think>", "｜DSML｜", "<｜latest_reminder｜>", "<｜action｜>", "<｜query｜>", "<｜authority｜>", "<｜domain｜>",
                "<｜title｜>", "<｜read_url｜>"]
SPLITS = ["\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
          "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
          "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]

SENTENCES = """\
The toaster warms up slowly, then faster; at 240 degrees the bread turns brown.
Nobody knows why it hums. It's a quiet hum, the kind you'd miss if it weren't there.
"We're late," she said, "and they've already started the third round without us!"
Prices rose from $3.50 to $12,000.75 (about 342,757 %), which isn't plausible.
See section 4.2.1, page 1024, or write to kitchen@example.org before 2026-05-01T13:37:00Z.
面包机慢慢地热起来，然后越来越快；到二百四十度时面包就变成了棕色。
谁也不知道它为什么会嗡嗡作响。今天是2026年5月1日，星期五，气温23.5度。
他说：“我们已经迟到了！”她回答：“没关系，第三轮还没有开始呢。”
混合文字测试：GPU和CPU的速度相差12倍，使用UTF-8编码，价格￥99.80元。
トースターはゆっくり温まり、それから速くなります。パンは茶色になりました。
「なぜ音がするのか、誰も知らない」と彼女は言った。カタカナ・ひらがな・漢字、ｶﾀｶﾅ。
토스터는 천천히 데워지다가 점점 빨라집니다. 아무도 이유를 모릅니다.
تسخن المحمصة ببطء ثم بسرعة أكبر، وعند ٢٤٠ درجة يصبح الخبز بنيًّا.
הטוסטר מתחמם לאט, ואז מהר יותר; איש אינו יודע מדוע הוא מזמזם.
टोस्टर धीरे-धीरे गरम होता है, फिर तेज़ी से; २४० डिग्री पर रोटी भूरी हो जाती है।
เครื่องปิ้งขนมปังค่อย ๆ ร้อนขึ้น แล้วก็เร็วขึ้น ไม่มีใครรู้ว่าทำไม
Тостер нагревается медленно, потом быстрее; никто не знает, почему он гудит.
Η τοστιέρα ζεσταίνεται αργά και μετά πιο γρήγορα· κανείς δεν ξέρει γιατί.
Der Röster wärmt sich erst langsam, dann schneller auf; die Brötchen bräunen schließlich übermäßig.
Le grille-pain chauffe doucement, puis plus vite ; à 240 degrés, l’œuf est déjà brûlé… n’est-ce pas ?
El tostador calienta despacio y después más rápido; ¿quién sabrá por qué zumba? ¡Nadie!
Máy nướng bánh mì nóng lên từ từ rồi nhanh hơn; không ai biết vì sao nó kêu.
Emoji: 😀😅🏽 👩‍👩‍👧‍👦 🇩🇪🇯🇵 ❤️ ✅ 1️⃣ 🤷🏿‍♂️ and text: :-) ¯\\_(ツ)_/¯
Maths: ∀x∈ℝ: x² ≥ 0, √2 ≈ 1.41421356, e^{iπ}+1=0, Σᵢ aᵢ·bᵢ, ½ + ⅓, Ⅷ, ①②③, 10⁻⁶ Ω.
Zalgo: z̷̢̛a̸l̵g̶o̷, precomposed é against e\u0301, ligature ﬁ, fullwidth ＡＢＣ１２３！
"""

CODE = """\
#include <cstdio>
int main(int argc, char** argv) {\n\tfor (int i = 0; i < argc; ++i) std::printf("%d: %s\\n", i, argv[i]);\n\treturn 0;\n}
def warm(bread: list[str], *, degrees=240) -> dict:\n    \"\"\"Warms every slice.\"\"\"\n    return {s: degrees ** 2 for s in bread if not s.startswith('_')}
const warm = async (bread) => { await Promise.all(bread.map(s => fetch(`/warm/${s}?t=${Date.now()}`))); };
fn warm(bread: &mut Vec<Slice>) -> Result<(), Error> {\n    bread.iter_mut().for_each(|s| s.degrees += 1.5e3);\n    Ok(())\n}
func Warm(bread []Slice) error {\n\tif err := check(bread); err != nil {\n\t\treturn fmt.Errorf("warm: %w", err)\n\t}\n\treturn nil\n}
public final class Toaster<T extends Bread> { @Override public String toString() { return "Toaster#" + hashCode(); } }
SELECT b.id, COUNT(*) AS slices FROM bread b LEFT JOIN slices s ON s.bread_id = b.id WHERE b.kind <> 'rye' GROUP BY 1;
for f in *.log; do grep -E '^\\[?(ERROR|WARN)' "$f" | sed 's/[0-9]\\{3,\\}/N/g' >> "${OUT:-/tmp/out}"; done
<div class="toast" id='t1'><a href="https://example.org/?a=1&amp;b=2#top">Brown&nbsp;bread</a><!-- 240 --></div>
warm :: [Bread] -> Maybe Degrees\nwarm [] = Nothing\nwarm (x:xs) = Just $ foldr (\\b d -> d + heat b) 0 (x:xs)
module Toaster; def self.warm(bread) = bread.map { |s| s&.heat(240) || :cold }; end
{"toast": {"slices": [1, 2.5, -3e-7, null, true], "name": "Br\\u00f6t\\"chen", "nested": {"a": [[], {}]}}}
2026-05-01 13:37:00,123 [worker-17] WARN  org.example.Toaster - slot 3: 0xDEADBEEF != 0x0 (retry 5/10)
127.0.0.1 - - [01/May/2026:13:37:00 +0000] "GET /toast?slot=3 HTTP/1.1" 503 1048576 "-" "curl/8.0.1"
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
================================================================================
"""

TRICKY = ["   leading", "trailing   \n", "\n\n\n", " \n \n ", "\r\n\r\nx", "\t\ttabs\tand  spaces ", "a\u00a0b\u3000c\u2003d",
          "<｜User｜>as text<｜Assistant｜>", "<think>｜DSML｜</think>", "｜｜｜", "…", "x" * 70, "…?!\n\n)", "a.b.c", ".abc", "!!abc", "-_-",
          "12345678901234567890", "1,234.5", "१२३४५", "\u0000\u0001\u001f", "\u200b\u200d\u2060", "\U000e0041", "\u180e x", "\ue000\uf8ff"]


def random_text(rng, count):
    """Characters from all over Unicode 14, without those JavaScript's \\s sees differently."""
    blocks = [(0x20, 0x7F), (0xA0, 0x180), (0x370, 0x400), (0x400, 0x530), (0x5D0, 0x5EB), (0x620, 0x700),
              (0x900, 0x980), (0xE01, 0xE3B), (0x2000, 0x206F), (0x2190, 0x2200), (0x3000, 0x3100), (0x4E00, 0x9FA6),
              (0xAC00, 0xD7A4), (0xFF01, 0xFFEF), (0x1F300, 0x1F5FF), (0x20000, 0x20100)]
    out = []
    for _ in range(count):
        low, high = rng.choice(blocks)
        out.append(chr(rng.randrange(low, high)))
    return "".join(out)


def sample():
    rng = random.Random(1)
    parts = [SENTENCES, CODE] + [t + "\n" for t in TRICKY]
    lines = (SENTENCES + CODE).split("\n")
    for _ in range(90):
        words = " ".join(rng.sample(lines, 2)).split(" ")
        rng.shuffle(words)
        parts.append(" ".join(words) + rng.choice(["\n", "\n\n", "  \n", "\r\n"]))
    parts += [random_text(rng, 40) + "\n" for _ in range(60)]
    return "".join(parts).encode("utf-8", "strict").decode("utf-8")


def byte_characters():
    table, extra = {}, 0
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def rough_words(text):
    """Close enough to the real splits for training."""
    word = ""
    for c in text:
        kind = "a" if c.isalpha() else "s" if c.isspace() else "p"
        if word and not (kind == last or (word == " " and kind != "s")):
            yield word
            word = ""
        word += c
        last = kind
    yield word


def train(text, count):
    table = byte_characters()
    words = collections.Counter()
    for word in rough_words(text):
        if len(word) < 40 and not any(c.isdigit() for c in word):
            words[tuple(table[b] for b in word.encode())] += 1
    merges = []
    for _ in range(count):
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        merged = collections.Counter()
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i:i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] += n
        words = merged
    return merges


def main():
    text = sample()
    merges = train(text, MERGES)
    vocab = {}
    for token in CONTROL_FRONT + [byte_characters()[b] for b in range(256)] + [a + b for a, b in merges]:
        vocab.setdefault(token, len(vocab))
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, t in enumerate(CONTROL_FRONT)]
    added += [{"id": len(vocab) + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
               "normalized": True, "special": t == "<|EOT|>"} for i, t in enumerate(CONTROL_BACK)]
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    split = [{"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False} for r in SPLITS]
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": split + [
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": {**level, "trim_offsets": False}, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": [f"{a} {b}" for a, b in merges]}}
    with open(os.path.join(HERE, "tokenizer.json"), "w", encoding="utf-8", newline="\n") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
        file.write("\n")
    with open(os.path.join(HERE, "sample.txt"), "w", encoding="utf-8", newline="") as file:
        file.write(text)


main()
