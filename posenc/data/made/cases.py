"""Chinese texts of private-lending cases, made from a seed: which of two is closer to a third by its facts.

A fact says of two things that one is so and the other is not, or which of two belongs where. Told the one way or the
other it takes the same characters, so that all texts of a row have the same bag: only their order tells the facts. The
second and the third text tell every fact in the other order than the first, so that none of them is a copy of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from posenc.data.made.lexicon import Dice

_SURNAMES = tuple("张李王刘陈杨黄赵吴周徐孙马朱胡林郭何高罗")
_RELATIONS = ("朋友", "同事", "邻居", "亲戚", "同学", "生意伙伴")
_PURPOSES = ("资金周转", "购买房屋", "装修房屋", "子女上学", "治病", "经营生意")
_AMOUNTS = ("4万元", "5万元", "6万元", "8万元", "10万元", "15万元", "20万元", "30万元", "50万元")
_RETURNS = ("1000元", "2000元", "3000元", "5000元", "8000元", "1万元", "2万元", "3万元")
_PERIODS = ("三个月", "六个月", "八个月", "一年", "一年半", "两年", "三年")


@dataclass(frozen=True)
class Fact:
    """One of two things is so (`yes`), the other is not (`no`); or the one belongs in `yes`, the other in `no`.

    Attributes:
        things: the two; or, as text, the name of what is drawn for the case: amounts, returns, periods, people.
        stage: where in the story it is told: 0 agreement, 1 delivery and security, 2 repayment, 3 in court.
    """

    stage: int
    before: str
    yes: str
    no: str
    join: str
    things: tuple[str, str] | str

    def told(self, things: tuple[str, str], turned: bool) -> str:
        """The fact in words; turned, it begins with its second half."""
        parts = [self.yes.format(things[0]), self.no.format(things[1])]
        return f"{self.before}{parts[turned]}，{self.join}{parts[not turned]}。"


# What may be told of every loan anew.
_LOAN = (
    Fact(0, "双方", "约定了{}", "未约定{}", "但", ("利息", "违约金")),
    Fact(0, "双方", "约定了{}的负担", "未约定{}的负担", "但", ("律师费", "公证费")),
    Fact(0, "合同", "载明了{}", "未载明{}", "但", ("借款用途", "还款方式")),
    Fact(0, "", "借款期限为{}", "逾期时间为{}", "", "periods"),
    Fact(0, "", "{}是实际用款人", "{}不是实际用款人", "而", ("被告", "被告的配偶")),
    Fact(0, "被告", "出具了{}", "未出具{}", "但", ("借条", "收据")),
    Fact(0, "被告", "在合同上{}", "未在合同上{}", "但", ("签名", "捺印")),
    Fact(1, "款项", "以{}方式交付", "未以{}方式交付", "而", ("银行转账", "现金")),
    Fact(1, "款项", "用于{}", "未用于{}", "而", ("夫妻共同生活", "公司经营")),
    Fact(1, "款项分两次交付，", "第一次交付{}", "第二次交付{}", "", "amounts"),
    Fact(1, "", "{}同意共同还款", "{}不同意共同还款", "但", ("被告的配偶", "被告的父亲")),
    Fact(1, "", "{}提供了保证", "{}未提供保证", "但", "people"),
    Fact(1, "保证人", "承担{}保证责任", "不承担{}保证责任", "而", ("连带", "一般")),
    Fact(1, "被告", "以{}作了抵押", "未以{}作抵押", "但", ("房屋", "车辆")),
    Fact(2, "被告", "归还了{}", "未归还{}", "但", ("本金", "利息")),
    Fact(2, "被告两次还款，", "首次还款{}", "末次还款{}", "", "returns"),
    Fact(2, "原告", "通过{}催要过借款", "未通过{}催要借款", "但", ("微信", "电话")),
    Fact(2, "原告", "向{}主张过权利", "未向{}主张权利", "但", ("保证人", "被告的配偶")),
)
# What is told of a case once.
_CASE = (
    Fact(3, "原告", "提交了{}", "未提交{}", "但", ("借款合同", "证人证言")),
    Fact(3, "被告", "认可{}", "不认可{}", "但", ("本金数额", "利息数额")),
    Fact(3, "", "{}到庭应诉", "{}未到庭应诉", "但", ("被告", "保证人")),
    Fact(3, "原告", "请求支付{}", "未请求支付{}", "但", ("逾期利息", "律师费")),
    Fact(3, "被告", "提出了{}", "未提出{}", "但", ("管辖权异议", "诉讼时效抗辩")),
    Fact(3, "原告", "申请了{}", "未申请{}", "但", ("财产保全", "笔迹鉴定")),
)
_ORDINALS = "一二三四五六七八九十"
_LOANS_PER = 18  # so many facts a loan takes before there is another


@dataclass(frozen=True)
class Outline:
    """What all texts of a row have in common: of whom and of what they tell, but not which way round.

    Attributes:
        facts: each with the part of the text it belongs to (a loan, or at last the court) and its two things, in the
            order they are told in.
        parts: the words that each part begins with.
        style: words put in the place of others, throughout.
    """

    people: tuple[str, str]
    opening: str
    facts: tuple[tuple[Fact, int, tuple[str, str]], ...]
    parts: tuple[str, ...]
    style: tuple[tuple[str, str], ...]

    def told(self, ways: list[bool], turned: bool) -> str:
        """A text; `ways` says of the opening and of every fact which way round it is, `turned` how facts are told."""
        lender, borrower = self.people[::-1] if ways[0] else self.people
        text, last = self.opening.format(lender=lender, borrower=borrower), -1
        for (fact, part, things), way in zip(self.facts, ways[1:], strict=True):
            told = fact.told(things[::-1] if way else things, turned)
            text, last = text + (self.parts[part] if part != last else "") + told, part
        for word, other in self.style:
            text = text.replace(word, other)
        return text


def _outline(dice: Dice, sentences: int) -> Outline:
    """Draws what a row is about."""
    names = [f"{surname}某" for surname in dice.some(_SURNAMES, 4)]
    drawn = {"amounts": _AMOUNTS, "returns": _RETURNS, "periods": _PERIODS, "people": tuple(names[2:])}
    loans = 1 + (sentences - 2) // _LOANS_PER
    parts = [f"第{_ORDINALS[loan]}笔借款中，" if loans > 1 else "" for loan in range(loans)]
    pool = [(fact, loan) for loan in range(loans) for fact in _LOAN] + [(fact, loans) for fact in _CASE]
    facts = []
    for fact, part in sorted(dice.some(pool, sentences - 1), key=lambda pair: (pair[1], pair[0].stage)):
        one, two = dice.some(drawn[fact.things], 2) if isinstance(fact.things, str) else fact.things
        facts.append((fact, part, (one, two)))
    opening = "原告{lender}与被告{borrower}系" + dice.one(_RELATIONS) + "关系，{borrower}因" + dice.one(_PURPOSES)
    styles = ((), (("未", "没有"),), (("但", "但是"),), (("未", "没有"), ("但", "但是")))
    opening += "向{lender}借款。"
    return Outline((names[0], names[1]), opening, tuple(facts), (*parts, "诉讼中，"), dice.one(styles))


def _changed(dice: Dice, ways: list[bool], count: int) -> list[bool]:
    """So many of the facts the other way round."""
    places = dice.some(range(len(ways)), count)
    return [way != (place in places) for place, way in enumerate(ways)]


def _checked(sentences: int) -> None:
    if not 2 <= sentences <= _LOANS_PER * len(_ORDINALS):
        raise ValueError(f"sentences={sentences}: from 2 to {_LOANS_PER * len(_ORDINALS)} are possible")


def cases(seed: int, n: int, sentences: int = 3) -> list[tuple[str, str, str, str]]:
    """Texts A, B and C, and "B" or "C": the one that has more facts in common with A.

    Args:
        sentences: how long a text is; a sentence has about 22 characters.
    """
    _checked(sentences)
    dice = Dice(seed, "generated", "cases", sentences)
    rows: dict[tuple[str, str, str], str] = {}
    waiting: list[str] = []
    while len(rows) < n:
        waiting = waiting or dice.some("BC", 2)
        outline = _outline(dice, sentences)
        ways = [dice.chance(0.5) for _ in range(sentences)]
        near = dice.below(1 + sentences // 4)
        gap = max(1, sentences // 3)
        far = near + gap + dice.below(sentences - near - gap + 1)
        text = outline.told(ways, turned=False)
        others = [outline.told(_changed(dice, ways, count), turned=True) for count in (near, far)]
        if waiting[-1] == "C":
            others.reverse()
        row = (text, others[0], others[1])
        if len(set(row)) == 3 and row not in rows:
            rows[row] = waiting.pop()
    return [(*row, label) for row, label in rows.items()]


def documents(seed: int, n: int, sentences: int = 3) -> list[str]:
    """Texts of such cases, one by one: for training without labels."""
    _checked(sentences)
    dice = Dice(seed, "generated", "case documents", sentences)
    texts: dict[str, None] = {}
    while len(texts) < n:
        ways = [dice.chance(0.5) for _ in range(sentences)]
        texts[_outline(dice, sentences).told(ways, dice.chance(0.5))] = None
    return list(texts)
