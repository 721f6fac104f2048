"""Texts that tokenizers get wrong. `texts()` is deterministic; make.py writes it to texts.json."""

import random


def texts():
    fixed = [
        "",
        " ",
        "a",
        "Hello, world!",
        " leading and trailing ",
        "It's we'll they've I'm you'd don't IT'S WE'LL o'clock 'tis rock'n'roll 'S 'sS's",
        "it\u2019s \u2018quoted\u2019 \u201cdouble\u201d \u2014 dash \u2013 en \u2026 ellipsis",
        "'\u017f '\u017ft don'\u017f",  # the long s folds to s
        # Whitespace
        "a b  c   d    e     f      g",
        "a\tb\t\tc \t d\t e",
        "one\ntwo\n\nthree\n\n\nfour\n\n\n\nfive \n six\n \n seven \n\n  eight",
        "crlf\r\nline\r\n\r\nline\rcr only\r\r\n\n\r",
        "   \n   \n\t\n",
        "\n",
        "\n\n\n",
        "  ",
        "                                                                                 x",
        "x                                                                                 ",
        "\u00a0nbsp\u00a0\u00a0two \u00a0mixed\u2003em\u2009thin\u200azero\u200bwidth\u3000ideographic\u2028line\u2029para\u0085nel",
        "tab\tand\x0bvertical\x0cform feed",
        # Code
        "def f(x):\n    if x > 0:\n        return x ** 2  # square\n\treturn None\n",
        "for (int i=0;i<n;++i){a[i]=b[i]+=c[i]&&d||!e;}//done\n/* c */",
        "<div class=\"a b\" id='c'>&nbsp;&lt;x&gt;</div>\n<!-- no -->",
        "x = {'a': [1, 2.5e-10, -3], \"b\": None, **kw}; y=x['a'][0]==1 and not(z!=2)",
        "https://example.com/path?q=1&r=%20#frag user@mail.example C:\\Windows\\System32 ~/.config/a_b-c",
        "snake_case camelCase PascalCase SCREAMING_CASE kebab-case HTMLParser2Xml iOS15",
        "-----\n=====\n*****\n#####\n.....\n,,,,,\n;;;;;\n!!!!!\n?????",
        "#include <stdio.h>\nint main(void)\n{\n\tprintf(\"%d\\n\", 0x1F);\n}\n",
        # Numbers
        "0 1 12 123 1234 12345 123456 1234567 12345678901234567890",
        "3.14159 1,000,000 1_000_000 1e10 -5 +7 50% $9.99 \u20ac1.234,56 1/2 10:30 2024-01-31 v1.2.3 192.168.0.1",
        "x2 2x H2O 4th 21st 007 \u00bd \u00b2 \u2167 \u0661\u0662\u0663 \u0967\u0968\u0969 \uff11\uff12\uff13 \u4e00\u4e8c\u4e09 \u2460\u2461 1\ufe0f\u20e3",
        "12   34  56 7",
        # Scripts
        "\u6771\u4eac\u90fd\u306b\u4f4f\u3093\u3067\u3044\u307e\u3059\u3002\u30bf\u30ef\u30fc\uff01\u4f60\u597d\uff0c\u4e16\u754c\u3002\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
        "\u6771\u4eacabc\u6771\u4eac 123\u6771\u4eac\uff0cdef\u3042\u30a2\uff71",
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u041a\u0430\u043a \u0434\u0435\u043b\u0430? \u0401\u0436\u0438\u043a \u0456 \u0457",
        "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5 \u03c2 \u03a3",
        "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064a\u0641 \u062d\u0627\u0644\u0643\u061f \u0661\u0662\u0663 \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd! \u05d1\u05bc\u05b0\u05e8\u05b5\u05d0\u05e9\u05c1\u05b4\u05d9\u05ea",
        "\u202eoverride\u202c \u200fmark\u200e \u2066isolate\u2069 \u061cabc",
        "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0 \u1230\u120b\u121d",
        "Ti\u1ebfng Vi\u1ec7t \u00fc\u00f6\u00e4\u00df \u00c5ngstr\u00f6m na\u00efve fa\u00e7ade \u00d1and\u00fa \u0141\u00f3d\u017a \u0130stanbul \u0131 \u01c5 \u02b0 \u00aa\u00ba",
        # Normal forms and marks
        "e\u0301 \u00e9 a\u0308\u0323 \u1ea1\u0308 n\u0303 \u0041\u030a \u212b \u2126 \ufb01 \ufb03 \u00c4\ufb03n",
        "Z\u0351\u036b\u0343\u036a\u0302a\u0334\u0322\u0328l\u0336\u0321g\u0335\u0321\u0322o\u0320\u0354",
        "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uae00 \u3131\u3134",
        "x\u0301\u0302\u0303 \u0301alone 1\u0301 ,\u0301",
        "\u2460 \u33a1 \uff21\uff42\uff43 \u00b5m \u2122 \u00ae \u210c \U0001d49c\U0001d4b7 \u1d2c \ufdfa",
        # Emoji
        "\U0001f600\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd \u2764\ufe0f\u200d\U0001f525 \u263a\ufe0f \u00a9\ufe0f \U0001f9d1\U0001f3ff\u200d\U0001f4bb",
        "text\U0001f600text\U0001f600\U0001f600 1\U0001f6002 .\U0001f600!",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f \U0001fae0 \U0001fac3\U0001f3fb",
        # Control characters, non-characters, private use, rare planes
        "".join(chr(c) for c in range(1, 32)) + "\x7f",
        "a\x00b\x00\x00c",
        "\x80\x81\x9f\xad soft\xadhyphen",
        "\ufeffbom in\ufeffside \ufffd replaced \ufffe\uffff \ue000\uf8ff \U000f0000 \U0010ffff",
        "\U00020000\U0002a6d6 \U00010348 \U0001d11e \U00012000 \U00013000 \U0001f0a1",
        # Long
        "a" * 700,
        "ab" * 300 + "!" * 300 + "7" * 300 + "\n" * 100 + " " * 100 + "z",
        "supercalifragilisticexpialidocious" * 6 + " pneumonoultramicroscopicsilicovolcanoconiosis",
        "\u6f22" * 150 + "\U0001f600" * 60 + "\u0301" * 40,
        "word " * 120,
        # What looks like special tokens
        "<|im_start|>user\nhi<|im_end|>\n<|endoftext|> <s>x</s> <unk><pad> [CLS] [SEP] [MASK] [UNK] <0x0A> <0x41>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|> <start_of_turn>user\nhi<end_of_turn>\n",
        "< |im_start|> <|im_start |> <|im_start <|im_|im_end|>end|> <<s>> </ s> <|IM_END|> <s></s><s>",
        "<|im_end|>a<|im_end|> b <|im_end|>\n<|im_end|>\n\n<|im_end|><|im_end|>",
        "\u2581under\u2581score \u2581 \u2581\u2581x \u0120G \u010a \u00c4\u0142 ##ing ## # a##b",
        # Mixed
        "The quick brown fox jumps over the lazy dog.\nShe sells sea-shells; he doesn't. \"Really?\" (Yes!) [maybe] {no}",
        "a.b,c;d:e!f?g\"h'i(j)k[l]m{n}o<p>q/r\\s|t@u#v$w%x^y&z*1-2_3=4+5~6`7",
        ".a ,b ;c !d ?e (f )g $h %i ^j &k *l -m _n =o +p ~q `r |s \\t",
        "(\u0430) [\u0431]{\u0432}\u00ab\u0433\u00bb\u3008\u0434\u3009\u300c\u0435\u300d",
        "!\n\n?\r\n\r\n.\n a /\n//\n\n",
    ]
    return fixed + [fuzz(seed) for seed in range(120)]


# Drawn from at random; weights by repetition.
PIECES = (
    [" ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "'", "'s", "'LL", ".", ",", "!", "-", "_", "/", "<", ">", "|"]
    + ["the", "and", "of", "Mr", "Darcy", "Elizabeth", "was", "not", "ing", "ed", "un", "THE", "And", "x", "Q"]
    + ["1", "22", "333", "4444", "\u00b2", "\u0663", "\u00e9", "e\u0301", "\u00df", "\u0130", "\u6f22", "\u5b57", "\u3042", "\uac00", "\u0416", "\u0645", "\u0939\u093f"]
    + ["\U0001f600", "\u200d", "\ufe0f", "\u0301", "\u00a0", "\u3000", "\x07", "\x1b", "\x00", "\u2581", "\ufffd", "\U0001f1e9", "\U00020000"]
    + ["<|im_end|>", "<s>", "</s>", "<|eot_id|>", "[SEP]", "<unk>", "##", "\u0120", "<end_of_turn>"]
)


def fuzz(seed):
    draw = random.Random(seed)
    return "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 40)))
