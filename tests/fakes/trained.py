"""Training functions as a project's own module has them."""

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from noria.domain.prompt import Base, Prompt


def words(train, parameters, progress):
    progress.say(1, 1, "learning")
    head = LogisticRegression(C=parameters.get("c", 1.0))
    return make_pipeline(CountVectorizer(), head).fit(list(train["text"]), list(train["label"]))


def lower(texts):
    return [text.lower() for text in texts]


def pickled(train):
    steps = FunctionTransformer(lower), CountVectorizer(), LogisticRegression()
    return make_pipeline(*steps).fit(list(train["text"]), list(train["label"]))


def asked(train, job):
    messages = [{"role": "user", "content": "{{text}}"}]
    return Prompt(base=Base(upstream="lab", model="m"), messages=messages, labels=sorted(set(train["label"])))


def nothing(train):
    return 7


def greedy(train, holdout):
    return None
