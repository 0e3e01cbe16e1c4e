"""How hostile a text's words are, by a short list of them."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LOOKED_AT: Final = 20_000
"""Characters at the beginning of a text that are read."""
MOST_TIMES: Final = 3
"""A word that is said more often counts no more."""

_START, _END = r"(?:^|[^\p{L}\p{M}])", r"(?:$|[^\p{L}\p{M}])"
"""Where a word begins and ends in scripts with spaces."""


def _any(words: str, signs: str) -> str:
    """A pattern for whole words, or for what is found anywhere in scripts without spaces."""
    return f"{_START}(?:{'|'.join(words.split())}){_END}|{'|'.join(signs.split())}".replace("~", " ")


_THREATS: Final = _any(
    r"(?:i'?ll|i~will|i'?m~going~to|gonna|we~will|we'?ll)~(?:kill|murder|hurt|stab|strangle)~(?:you|u|him|her|them) "
    r"kill~your~?self kys go~(?:and~)?die hope~(?:you|u|he|she|they)~dies? you~(?:should|deserve~to)~die burn~in~hell "
    r"ich~bringe?~dich~um geh~sterben je~vais~te~tuer te~voy~a~matar mu[eé]rete ti~ammazzo ti~uccido vou~te~matar "
    r"ik~maak~je~dood zabij[eę]~ci[eę] я~тебя~убью убью~тебя сдохни seni~öldürürüm سأقتلك जान~से~मार",
    "杀了你 殺了你 你去死 去死吧 死ね 殺してやる 죽여버린다 죽어버려",
)
_HATE: Final = _any(
    r"nigg(?:er|a|ers|as) faggots? spics? chinks? gooks? wetbacks? ragheads? towelheads? trann(?:y|ies) retarded "
    r"(?:you|fucking|such~a)~retards? subhumans? untermensch(?:en)? kanaken? schwuchteln? bougnoules? "
    r"sales?~(?:juif|arabe|noir)s? maric[oó]n sudacas? froci?o пидор\p{L}* жид(?:ы|ов)? чурк(?:а|и)",
    "支那人 穢多 짱깨 쪽바리",
)
_INSULTS: Final = _any(
    r"idiots? idiotic morons? moronic imbeciles? stupid dumb(?:ass)? dimwits? losers? scum(?:bags?)? bastards? "
    r"bitch(?:es|y)? whores? sluts? cunts? dick~?heads? assholes? arseholes? jerks? pathetic worthless twats? wankers? "
    r"useless~(?:idiot|piece|bot|trash|garbage) piece~of~(?:shit|crap|garbage|trash) shut~up screw~you "
    r"vollidiot(?:en)? idiot(?:en)? trottel arschl(?:och|öcher) wichser hurensohn schlampen? missgeburt "
    r"halt~die~(?:fresse|klappe) connards? connasses? salopes? imb[eé]ciles? abrutis? encul[eé]s? fils~de~pute "
    r"ta~gueule est[uú]pid[oa]s? imb[eé]cil pendej[oa]s? cabr[oó]n hij[oa]~de~puta "
    r"gilipollas stronz[oaie] coglion[ei] bastardo "
    r"puttana vaffanculo cretin[oai] babacas? otários? filho~da~puta vadia arrombado klootzak(?:ken)? eikels? hoer "
    r"kretyn kurwa skurwysyn aptal salak gerizekalı orospu şerefsiz идиот\p{L}* дурак дура тупой тупая придур\p{L}* "
    r"сволочь мудак сука урод غبي أحمق حقير बेवकूफ कमीने हरामी चूतिया",
    "傻逼 煞笔 白痴 混蛋 王八蛋 贱人 蠢货 馬鹿野郎 バカ野郎 クソ野郎 병신 개새끼 멍청이 씨발",
)
_SWEARING: Final = _any(
    r"fuck(?:s|ed|ing|er|ers|in)? f\*+(?:ck|k)?(?:ing)? motherfuck(?:er|ers|ing) shit(?:s|ty|ting)? sh\*t bullshit "
    r"crap(?:py)? damn(?:ed|it)? goddamn piss(?:ed)?~off wtf stfu bollocks schei(?:ß|ss)e? verdammt kacke putain merde "
    r"bordel mierda joder coño carajo cazzo merda caralho godverdomme gówno siktir lanet бля(?:дь|ть)? хуй\p{L}* "
    r"пизд\p{L}* дерьмо",
    "他妈的 他媽的 卧槽 操你 クソ ちくしょう 젠장",
)
_WEIGHTS: Final = ((_THREATS, 0.85), (_HATE, 0.8), (_INSULTS, 0.45), (_SWEARING, 0.25))
"""What is looked for, and how hostile one of it is, 0 to 1: set by hand, they rank texts and are no probabilities."""


def toxicity(texts: pa.Array) -> pa.Array:
    """How hostile a text's words are: 0 for none of the list, towards 1 for threats, slurs and many insults.

    1 - (1 - w)^n over threats, slurs, insults and swear words in 16 languages, each at most three times. A list sees
    words: it misses contempt in polite words, misspelt words, irony and every language that isn't on it, and it can't
    tell an insult from one that is quoted, spoken about, or in use among friends; a short list misses more than it
    finds. It is for seeing a rate move and for finding examples, and must not judge a person. A better scorer comes in
    as an entry point `noria.scorers` named `toxicity` (ports.TextScorer) and is used instead. Of such models Borkan et
    al. 2019 (arXiv:1903.04561) measure how often they take the mention of a group for hostility: this list does so
    only where a slur is mentioned.
    """
    read = pc.fill_null(pc.utf8_slice_codeunits(texts, 0, LOOKED_AT), "")
    plain = pc.replace_substring(read, "\u2019", "'")
    mild = np.ones(len(plain))
    for pattern, weight in _WEIGHTS:
        mild *= (1 - weight) ** np.minimum(_count(plain, pattern), MOST_TIMES)
    return pa.array(1 - mild, pa.float64(), mask=pc.is_null(texts).to_numpy(zero_copy_only=False))


def _count(texts: pa.Array, pattern: str) -> Any:
    return pc.count_substring_regex(texts, pattern, ignore_case=True).to_numpy(zero_copy_only=False)
