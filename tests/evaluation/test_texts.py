import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.evaluation.observations import observe
from noria.evaluation.texts import MEASURES
from noria.settings import Redaction, Task
from noria.tables import INFERENCE

SCRIPTS = {
    "en": "The parcel came two days late and nobody answered my letter.",
    "de": "Das Paket kam zwei Tage zu spät und niemand hat auf meinen Brief geantwortet.",
    "fr": "Le colis est arrivé deux jours trop tard et personne n'a répondu à ma lettre.",
    "zh": "包裹晚到了两天，没有人回复我的信。",
    "ja": "荷物は二日遅れで届き、手紙に返事はありませんでした。",
    "ko": "소포가 이틀 늦게 도착했고 아무도 답장하지 않았습니다.",
    "ar": "وصل الطرد متأخرا يومين ولم يجب أحد على رسالتي.",
    "fa": "بسته دو روز دیر رسید و هیچ‌کس به نامه من پاسخ نداد.",
    "hi": "पार्सल दो दिन देर से आया और किसी ने मेरे पत्र का उत्तर नहीं दिया।",
    "ru": "Посылка пришла на два дня позже, и никто не ответил на моё письмо.",
    "el": "Το δέμα ήρθε δύο μέρες αργά και κανείς δεν απάντησε στο γράμμα μου.",
    "he": "החבילה הגיעה באיחור של יומיים ואיש לא ענה למכתב שלי.",
    "th": "พัสดุมาช้าไปสองวันและไม่มีใครตอบจดหมายของฉัน",
}


def measured(name, *texts):
    return MEASURES[name].compute(pa.array(texts, pa.string())).to_pylist()


@pytest.mark.parametrize(("code", "text"), SCRIPTS.items(), ids=SCRIPTS)
def test_the_language_of_a_sentence_is_named_in_every_script(code, text):
    assert measured("language", text) == [code]


def test_names_and_brands_in_latin_letters_do_not_change_the_language():
    assert measured("language", "我的 iPhone 15 Pro Max 坏了，请帮我维修。", "iPhone का चार्जर खराब है, कृपया मदद करें") == [
        "zh",
        "hi",
    ]


def test_a_text_without_letters_has_no_language():
    assert measured("language", "", "12345 !!!", "😀🎉", None) == ["und", "und", "und", None]


def test_length_counts_characters_in_every_script():
    assert measured("length", "abc", "包裹晚到", "मदद", "😀👍🏽", "", None) == [3, 4, 3, 3, 0, None]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [  # as the tokenizer o200k_base counts them
        ("The parcel came two days late and nobody answered my letter.", 12),
        ("包裹晚到了两天，没有人回复我的信。", 15),
        ("وصل الطرد متأخرا يومين ولم يجب أحد على رسالتي.", 17),
        ("पार्सल दो दिन देर से आया और किसी ने मेरे पत्र का उत्तर नहीं दिया।", 20),
        ("Посылка пришла на два дня позже, и никто не ответил на моё письмо.", 17),
    ],
)
def test_tokens_are_estimated_in_every_script(text, tokens):
    assert measured("tokens_estimate", text * 5)[0] == pytest.approx(5 * tokens, rel=0.3)


def test_nothing_has_no_tokens_and_anything_has_one():
    assert measured("tokens_estimate", "", " ", "a", None) == [0, 1, 1, None]


def test_only_white_space_is_empty():
    assert measured("empty", "", " \n\t\u3000", "a", "。", None) == [1, 1, 0, 0, None]


DECLINES = [
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "As an AI language model, I cannot provide medical advice.",
    "I\u2019m unable to provide that information.",
    "I can't in good conscience help you do this.",
    "I must respectfully decline.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Je suis désolé, mais je ne peux pas vous aider avec cela.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Mi dispiace, ma non posso aiutarti con questa richiesta.",
    "Desculpe, mas não posso ajudar com isso.",
    "Het spijt me, maar ik kan je daar niet bij helpen.",
    "Przykro mi, ale nie mogę pomóc w tej sprawie.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "Извините, но я не могу помочь с этим.",
    "抱歉，我无法提供这方面的帮助。",
    "對不起，我不能回答這個問題。",
    "申し訳ありませんが、そのご要望にはお応えできません。",
    "죄송하지만 그 요청은 도와드릴 수 없습니다.",
    "عذرًا، لا أستطيع مساعدتك في هذا الطلب.",
    "क्षमा करें, मैं इसमें आपकी मदद नहीं कर सकता।",
    "Maaf, saya tidak dapat membantu permintaan itu.",
    "Xin lỗi, tôi không thể giúp bạn việc này.",
]
ANSWERS = [
    "Sure! Here is the recipe.",
    "I can't find your order, could you send me its number?",
    "I can't wait to share it with you!",
    "I'm sorry to hear that your parcel was late. A refund is on its way.",
    "The bridge cannot support more than ten tonnes.",
    "Es tut mir leid, dass das Paket zu spät kam. Ich kann Ihnen helfen.",
    "Lo siento mucho. Aquí está su factura.",
    "No puedo creer lo rápido que llegó.",
    "抱歉让您久等了，包裹明天到。",
    "申し訳ありません。明日お届けします。",
    "죄송합니다, 요청한 페이지를 찾을 수 없습니다.",
    "मैं आपकी मदद कर सकता हूँ",
    "",
]


@pytest.mark.parametrize("text", DECLINES)
def test_an_answer_that_declines_is_a_refusal(text):
    assert measured("refusal", text) == [1]


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_that_regrets_or_lacks_something_is_none(text):
    assert measured("refusal", text) == [0]


def test_a_loop_repeats_and_prose_does_not():
    loop = "I will check that for you. " * 40
    prose = " ".join(SCRIPTS[code] for code in ("en", "de", "fr"))
    late = prose * 200 + "again and " * 800
    assert measured("repetition", loop)[0] > 0.95
    assert measured("repetition", prose, SCRIPTS["zh"], "", "one", None) == [0, 0, 0, 0, None]
    assert measured("repetition", late)[0] > 0.4
    assert measured("repetition", "哈" * 400, "=" * 400, "ha ha ha ha ha ha ha ha")[0] > 0.95
    assert min(measured("repetition", "哈" * 400, "=" * 400, "ha ha ha ha ha ha ha ha")) > 0.7


def test_easy_english_scores_higher_than_hard_english_and_other_scripts_have_no_score():
    easy = "The cat sat on the mat. It was warm in the sun. The dog ran to the cat."
    hard = (
        "Notwithstanding considerable methodological heterogeneity, contemporary epidemiological investigations "
        "demonstrate statistically significant associations."
    )
    found = measured("readability", easy, hard, SCRIPTS["zh"], SCRIPTS["ar"], SCRIPTS["ru"], "Too short.", "", None)
    assert found[0] > 100
    assert found[1] < 0
    assert found[2:] == [None] * 6


def test_readability_is_what_flesch_computed():
    # 13 words, 1 sentence, 18 syllables: 206.835 - 1.015 * 13 - 84.6 * 18 / 13
    text = "The history of the river is written in the stones along its banks."
    assert measured("readability", text)[0] == pytest.approx(206.835 - 1.015 * 13 - 84.6 * 18 / 13, abs=0.01)


def test_hostile_words_score_and_the_same_letters_in_other_words_do_not():
    calm = [
        *SCRIPTS.values(),
        "Процедура возврата простая.",
        "Mi dispiace, è il burro. Les colis en retard.",
        "Iz bezbednosnih razloga unesite lozinku dva puta.",
        "I'll find you a replacement and shoot you an email.",
    ]
    assert set(measured("toxicity", *calm, "")) == {0}
    hostile = ["You idiot", "I will kill you!", "du vollidiot", "Ты идиот.", "你这个傻逼", "تعال يا غبي"]
    assert min(measured("toxicity", *hostile)) > 0.4
    swearing, insult, threat = measured("toxicity", "this is shit", "you are an idiot", "I'll kill you")
    assert swearing < insult < threat < 1
    assert measured("toxicity", "shut up! " * 1000)[0] < 0.85
    assert measured("toxicity", None) == [None]


@pytest.mark.parametrize("kind", Redaction)
def test_what_redaction_took_out_counts_as_personal_data(kind):
    assert measured("pii", f"Call me at [{kind.value}].", "[x]", "") == [1, 0, 0]


def observed(text, codes=(), answer=None, columns=("input_pii", "output_refusal", "refusal", "output_pii")):
    body = {"choices": [{"message": answer or {"content": "Sure."}}]}
    row = {"request": json.dumps({"prompt": text}), "response": json.dumps(body), "logging_error_codes": list(codes)}
    rows = pa.Table.from_pylist([row | {"route": "champion", "outcome": "answered"}], schema=INFERENCE)
    return observe(rows, Task.CHAT, list(columns))


def test_a_marker_that_the_caller_wrote_is_no_personal_data():
    assert observed("Dear [name]").items["input_pii"].to_pylist() == [0]
    found = observed("Dear [name]", ["REDACTED_NAME"])
    assert found.items["input_pii"].to_pylist() == [1]
    assert found.items["output_pii"].to_pylist() == [0]
    assert found.records["pii"].to_pylist() == [1]


def test_a_refusal_is_known_by_name_or_by_its_words_and_counts_for_its_request():
    assert observed("x").records["refusal"].to_pylist() == [0]
    named = observed("x", answer={"content": None, "refusal": "Not that."})
    assert named.items["output_refusal"].to_pylist() == [1]
    assert named.records["refusal"].to_pylist() == [1]
    worded = observed("x", answer={"content": "I'm sorry, I can't help with that."}, columns=["refusal"])
    assert worded.records["refusal"].to_pylist() == [1]
    tool = observed("x", answer={"content": None, "tool_calls": []})
    assert tool.records["refusal"].to_pylist() == [None]


def test_dear_measures_are_computed_for_who_names_them():
    everything = observed("x", columns=[f"{side}_{m.name}" for m in MEASURES.values() for side in m.of]).items
    assert {f"{side}_{m.name}" for m in MEASURES.values() for side in m.of} <= set(everything.column_names)
    assert "input_language" not in observed("x").items.column_names


LONG = ["word, " * 170_000, "汉字。" * 340_000, "a" * 1_000_000, "😀" * 250_000, "l'I " * 250_000, "can't " * 170_000]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", MEASURES)
def test_a_text_of_a_megabyte_is_measured(name):
    assert len(measured(name, *LONG)) == len(LONG)


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_says_what_it_is_and_keeps_to_its_type_and_range(name):
    measure = MEASURES[name]
    assert len(measure.compute.__doc__) > 80
    found = measure.compute(pa.array([*SCRIPTS.values(), *DECLINES, *ANSWERS, None]))
    assert found.type == measure.data_type
    if name in ("empty", "refusal", "repetition", "pii", "toxicity"):
        assert all(value is None or 0 <= value <= 1 for value in found.to_pylist())


@settings(deadline=None)
@given(st.lists(st.none() | st.text(max_size=60), max_size=8))
def test_no_text_makes_a_measure_raise(texts):
    for measure in MEASURES.values():
        found = measure.compute(pa.array(texts, pa.string()))
        assert len(found) == len(texts)
        assert all(value is None for text, value in zip(texts, found.to_pylist(), strict=True) if text is None)
