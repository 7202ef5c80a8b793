"""People, first half: families told apart by everyday clothes and work wear."""

from __future__ import annotations

from hmcli.world.bodies import Arm, Part, Person
from hmcli.world.space.shapes import Colour, Paint
from hmcli.world.subjects import wardrobe as wear
from hmcli.world.subjects.look import Look
from hmcli.world.subjects.palette import BLACK, CLOTHES, GOLD, STEEL, TROUSERS, WHITE, WOOD, Shades, a

CARRIES = Arm(swing=0.12, bend=0.12, aside=0.10)
HOLDS_UP = Arm(swing=0.05, raised=0.45, bend=1.75, aside=0.12)
LEANS_ON = Arm(swing=0.12, raised=0.35, bend=0.9, aside=0.16)
DENIM, RUBBER = (0.20, 0.32, 0.55), (0.16, 0.14, 0.13)


def dressed(
    s: Shades, *, top: Paint, bottom: Paint, shoes: Colour = RUBBER, sleeve: Paint | None = None,
    upper: Paint | None = None, shins: Paint | None = None, hands: Paint | None = None, hair: Colour | None = None,
    skin: Colour | None = None, height: tuple[float, float] = (1.62, 1.85), build: tuple[float, float] = (0.95, 1.12),
    head: tuple[float, float] = (1.1, 1.25), parts: tuple[Part, ...] = (), left: Arm | None = None,
    right: Arm | None = None, **posture: float,
) -> Person:  # fmt: skip
    """A person of drawn proportions; what is left out is skin, or follows the garment beside it."""
    skin = s.skin() if skin is None else skin
    hair = s.hair() if hair is None else hair
    return Person(
        height=s.between(*height), build=s.between(*build), head=s.between(*head), top=top, bottom=bottom,
        upper=upper or top, sleeve=sleeve or upper or top, shins=shins or bottom, shoes=s.plain(shoes),
        skin=Paint(colour=skin), hands=Paint(colour=skin) if hands is None else hands, hair=s.head(skin, hair),
        parts=parts, left=left or Arm(), right=right or Arm(), **posture,
    )  # fmt: skip


def walker(s: Shades) -> Look:
    """A striped shirt and trousers."""
    shirts = {name: colour for name, colour in CLOTHES.items() if name not in ("white", "orange")}
    (shirt, colour), (trousers, legs) = s.pick(shirts), s.pick(TROUSERS)
    skin = s.skin()
    stripes = Paint(colour=colour, second=WHITE, pattern="stripes", scale=s.between(0.13, 0.17))
    figure = dressed(
        s, top=stripes, bottom=Paint(colour=legs), sleeve=Paint(colour=skin), skin=skin, shoes=(0.88, 0.88, 0.86),
    )  # fmt: skip
    return Look(figure, s.between(1.0, 1.35), f"a person in {a(shirt)} striped shirt and {trousers} trousers")


def hiker(s: Shades) -> Look:
    """A long plain coat, a wide hat and a backpack."""
    coat, colour = s.pick({name: CLOTHES[name] for name in ("blue", "teal")})
    pack, bag = s.pick({name: CLOTHES[name] for name in ("red", "orange", "pink")})
    cloth, canvas = Paint(colour=colour), Paint(colour=bag)
    hat = wear.brimmed_hat(s.plain((0.80, 0.66, 0.36)), 0.125)
    straps = wear.rod("chest", (0.082, 0.050, -0.13), (0.0, 0.058, 0.045), (0.017, 0.017), canvas, both=True)
    figure = dressed(
        s, top=cloth, bottom=Paint(colour=s.pick(TROUSERS)[1]), shoes=(0.22, 0.15, 0.10), build=(1.02, 1.2),
        parts=(*wear.skirt(cloth, s.between(-0.21, -0.16), 0.170), *hat, *wear.backpack(canvas), straps),
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.25), f"a hiker in {a(coat)} coat and a straw hat with {a(pack)} backpack")


def jogger(s: Shades) -> Look:
    """Bare arms and legs, a bright vest, running."""
    skin = s.skin()
    bare, vest, shorts = Paint(colour=skin), s.plain((0.98, 0.18, 0.55)), s.plain((0.16, 0.14, 0.22))
    band = wear.disc("head", (0, 0, 0.030), 0.069, 0.010, s.plain(WHITE))
    hair = s.hair()
    pumping = Arm(swing=0.75, raised=-0.1, bend=1.5, aside=0.2)
    figure = dressed(
        s, top=vest, bottom=shorts, upper=bare, shins=bare, skin=skin, hair=hair, shoes=(0.75, 0.95, 0.20),
        build=(0.88, 1.0), parts=(band, *wear.ponytail(Paint(colour=hair))), left=pumping, right=pumping, lean=0.14,
        stride=1.15, duty=0.36,
    )  # fmt: skip
    return Look(figure, s.between(2.0, 2.6), "a jogger in a pink vest and dark shorts")


def office_worker(s: Shades) -> Look:
    """A blue-grey suit over a white shirt, a red tie and a briefcase."""
    suit = s.plain((0.27, 0.31, 0.42))
    parts = (
        wear.ball("chest", (0.060, 0, -0.060), (0.046, 0.042, 0.110), s.plain(WHITE)),
        wear.ball("chest", (0.096, 0, -0.070), (0.014, 0.013, 0.085), s.plain((0.75, 0.10, 0.12))),
        *wear.tails(suit, -0.10, 0.105),
        wear.box("left_hand", (0, 0, -0.100), (0.115, 0.030, 0.078), s.plain((0.50, 0.29, 0.13))),
        wear.box("left_hand", (0, 0, -0.100), (0.012, 0.033, 0.080), s.plain(GOLD)),
    )
    figure = dressed(s, top=suit, bottom=suit, shoes=(0.09, 0.08, 0.08), parts=parts, left=CARRIES)
    return Look(figure, s.between(1.1, 1.45), "a person in a grey suit and a red tie with a brown briefcase")


def builder(s: Shades) -> Look:
    """Orange from neck to ankle with lime bands, and a hard hat."""
    orange, lime = (0.99, 0.44, 0.05), (0.80, 0.96, 0.15)
    cloth, cuffs, band = s.plain(orange), s.mixed("tips", orange, lime, 0.20), s.plain(lime)
    parts = (
        *wear.helmet(s.plain((0.98, 0.82, 0.10)), 0.092),
        *wear.tails(cloth, -0.08, 0.110),
        wear.disc("chest", (0.0, 0, -0.10), 0.100, 0.022, band),
        *wear.belt(band, 0.112, 0.01, 0.022),
        wear.rod("right_hand", (0.0, 0, 0.02), (0.10, 0, -0.08), (0.014, 0.022), s.plain(STEEL)),
    )
    figure = dressed(
        s, top=cloth, sleeve=s.mixed("tips", orange, lime, 0.12), bottom=cloth, shins=cuffs, shoes=(0.30, 0.20, 0.12),
        build=(1.08, 1.25), bulk=1.15, parts=parts,
    )  # fmt: skip
    return Look(figure, s.between(0.95, 1.25), "a builder in orange with lime bands and a yellow helmet")


def firefighter(s: Shades) -> Look:
    """A tan coat with yellow bands, a red helmet, a red cylinder of air."""
    tan, band, red = (0.66, 0.50, 0.28), (0.94, 0.95, 0.15), s.plain((0.84, 0.07, 0.06))
    coat, cuffs, yellow = s.plain(tan), s.mixed("tips", tan, band, 0.13), s.plain(band)
    parts = (
        *wear.helmet(red, 0.104),
        *wear.tails(coat, -0.13, 0.122),
        wear.rod("chest", (-0.135, 0, -0.22), (-0.135, 0, 0.02), (0.050, 0.050), red),
        wear.disc("chest", (0.0, 0, -0.10), 0.099, 0.020, yellow),
        *wear.belt(yellow, 0.126, -0.05, 0.018),
        wear.box("head", (0.082, 0, 0.060), (0.008, 0.026, 0.030), yellow),
    )
    figure = dressed(
        s, top=coat, sleeve=cuffs, bottom=coat, shins=cuffs, shoes=(0.10, 0.10, 0.10),
        hands=s.plain((0.12, 0.12, 0.12)), build=(1.12, 1.28), bulk=1.3, parts=parts,
    )  # fmt: skip
    return Look(figure, s.between(0.95, 1.25), "a firefighter in a tan coat with yellow bands and a red helmet")


def doctor(s: Shades) -> Look:
    """A long open white coat over green scrubs, a cap and a mask."""
    scrubs, coat = s.plain((0.10, 0.58, 0.50)), s.plain(WHITE)
    parts = (
        wear.ball("head", (-0.006, 0, 0.036), (0.072, 0.064, 0.058), scrubs),
        wear.ball("head", (0.026, 0, -0.040), (0.052, 0.048, 0.032), s.plain((0.55, 0.82, 0.82))),
        wear.ball("chest", (0.058, 0, -0.075), (0.045, 0.036, 0.125), scrubs),
        *wear.skirt(coat, -0.24, 0.165),
        wear.box("hips", (0.075, 0, -0.09), (0.060, 0.030, 0.145), scrubs),
    )
    figure = dressed(s, top=coat, bottom=scrubs, shoes=(0.92, 0.92, 0.92), parts=parts)
    return Look(figure, s.between(1.1, 1.4), "a doctor in a white coat over green scrubs")


def chef(s: Shades) -> Look:
    """White jacket, tall white hat, checked trousers, red scarf."""
    white, checks = s.plain(WHITE), s.mixed("checks", (0.15, 0.15, 0.17), (0.85, 0.85, 0.85), 0.10)
    red = s.plain((0.85, 0.10, 0.10))
    spoon = wear.rod("right_hand", (0, 0, -0.03), (0.05, 0, 0.20), (0.010, 0.030), s.plain(WOOD))
    parts = (*wear.toque(white), wear.disc("chest", (0.004, 0, 0.045), 0.056, 0.020, red), spoon)
    figure = dressed(
        s, top=white, bottom=checks, shoes=(0.12, 0.10, 0.10), build=(1.15, 1.32), right=HOLDS_UP,
        parts=(*parts, *wear.belt(red, 0.112), *wear.tails(white, -0.10, 0.120)),
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.2), "a chef in a white jacket, a tall hat and checked trousers")


def farmer(s: Shades) -> Look:
    """Blue dungarees over a plaid shirt, a green cap, a pitchfork."""
    denim, plaid = s.plain(DENIM), s.mixed("plaid", (0.80, 0.16, 0.10), (0.25, 0.05, 0.06), 0.13)
    steel, green = s.plain(STEEL), s.plain((0.18, 0.50, 0.16))
    tines = tuple(
        wear.rod("right_hand", (0.01, y, 0.46), (0.01, y, 0.60), (0.008, 0.006), steel) for y in (-0.05, 0, 0.05)
    )
    fork = (
        *wear.staff(s.plain(WOOD), -0.50, 0.46),
        wear.box("right_hand", (0.01, 0, 0.46), (0.008, 0.058, 0.010), steel),
    )
    bib = wear.box("chest", (0.070, 0, -0.135), (0.030, 0.066, 0.080), denim, (0.0, -0.10))
    straps = wear.rod("chest", (0.070, 0.045, -0.06), (0.0, 0.055, 0.045), (0.016, 0.016), denim, both=True)
    figure = dressed(
        s, top=plaid, bottom=denim, shoes=(0.30, 0.40, 0.12), bulk=1.15, right=LEANS_ON,
        parts=(*wear.peaked_cap(green, green), *fork, *tines, bib, straps),
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.2), "a farmer in blue dungarees and a plaid shirt with a pitchfork")


def schoolchild(s: Shades) -> Look:
    """A small child with a round yellow hat, white shirt, and a square red satchel."""
    skin, white, red = s.skin(), s.plain(WHITE), s.plain((0.80, 0.10, 0.14))
    navy = s.plain((0.12, 0.17, 0.40))
    hat = (
        wear.ball("head", (-0.004, 0, 0.032), (0.076, 0.068, 0.070), s.plain((0.98, 0.84, 0.15))),
        wear.disc("head", (0.0, 0, 0.036), 0.098, 0.007, s.plain((0.98, 0.84, 0.15))),
    )
    satchel = wear.box("chest", (-0.130, 0, -0.10), (0.055, 0.092, 0.115), red)
    flap = wear.box("chest", (-0.150, 0, -0.06), (0.040, 0.096, 0.060), s.plain((0.62, 0.06, 0.10)))
    figure = dressed(
        s, top=white, bottom=navy, shins=s.mixed("tips", skin, WHITE, 0.12), skin=skin, shoes=(0.10, 0.08, 0.08),
        height=(1.15, 1.3), head=(1.55, 1.75), parts=(*hat, satchel, flap, *wear.skirt(navy, -0.16, 0.135, 0.22)),
    )  # fmt: skip
    return Look(figure, s.between(0.8, 1.1), "a child in a yellow hat and a blue skirt with a red satchel")


def elder(s: Shades) -> Look:
    """Bent over a cane: grey hair, a green cardigan, pale trousers."""
    grey, green = s.near((0.80, 0.80, 0.80)), s.plain((0.42, 0.52, 0.22))
    cane = (
        *wear.staff(s.plain(WOOD), -0.365, 0.02, 0.013),
        wear.rod("right_hand", (0.0, 0, 0.02), (-0.04, 0, 0.01), (0.014, 0.012), s.plain(WOOD)),
    )
    hair = (
        wear.ball("head", (-0.026, 0, -0.004), (0.050, 0.062, 0.060), Paint(colour=grey)),
        *wear.beard(Paint(colour=grey), 0.05),
    )
    front = wear.ball("chest", (0.060, 0, -0.070), (0.040, 0.028, 0.120), s.plain((0.86, 0.82, 0.70)))
    figure = dressed(
        s, top=green, bottom=s.plain((0.74, 0.66, 0.50)), shoes=(0.34, 0.20, 0.12), hair=grey, height=(1.5, 1.68),
        parts=(*cane, *hair, front, *wear.tails(green, -0.09, 0.108)), lean=0.42, stride=0.5,
        right=Arm(swing=0.1, raised=0.55, bend=0.25, aside=0.18), left=Arm(swing=0.12, raised=-0.7, bend=0.9),
    )  # fmt: skip
    return Look(figure, s.between(0.55, 0.8), "an old person in a green cardigan with a cane")


def rain_walker(s: Shades) -> Look:
    """A hooded yellow raincoat under an umbrella."""
    yellow = s.plain((0.97, 0.80, 0.10))
    cloth = s.mixed("segments", (0.84, 0.10, 0.14), WHITE, 1.0)
    figure = dressed(
        s, top=yellow, bottom=s.plain((0.20, 0.26, 0.42)), shins=s.plain((0.10, 0.52, 0.40)), shoes=(0.10, 0.52, 0.40),
        parts=(*wear.hood(yellow), *wear.skirt(yellow, -0.24, 0.175), *wear.umbrella(cloth, s.plain(BLACK))),
        right=HOLDS_UP, bulk=1.15,
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.25), "a person in a yellow raincoat under a red and white umbrella")


def porter(s: Shades) -> Look:
    """A wide basket on the head, a patterned wrap dress."""
    skin = s.near((0.42, 0.27, 0.19))
    wrap = s.mixed("checks", (0.10, 0.55, 0.25), (0.96, 0.76, 0.12), 0.16)
    wicker = s.mixed("plaid", (0.72, 0.52, 0.26), (0.45, 0.29, 0.12), 0.07)
    basket = (
        wear.disc("head", (0, 0, 0.086), 0.070, 0.018, s.plain((0.96, 0.76, 0.12))),
        wear.disc("head", (0, 0, 0.150), 0.175, 0.050, wicker),
        wear.ball("head", (0.05, 0.05, 0.215), (0.070, 0.065, 0.055), s.plain((0.90, 0.42, 0.08))),
        wear.ball("head", (-0.05, 0.03, 0.215), (0.065, 0.065, 0.055), s.plain((0.85, 0.20, 0.10))),
        wear.ball("head", (0.01, -0.07, 0.215), (0.070, 0.060, 0.055), s.plain((0.90, 0.42, 0.08))),
    )
    figure = dressed(
        s, top=wrap, upper=Paint(colour=skin), bottom=wrap, shins=Paint(colour=skin), skin=skin, hair=BLACK,
        parts=(*basket, *wear.skirt(wrap, -0.40, 0.150)), stride=0.6, shoes=(0.35, 0.20, 0.12),
        left=Arm(swing=0.08, raised=0.15, bend=0.1), right=Arm(swing=0.3),
    )  # fmt: skip
    return Look(figure, s.between(0.85, 1.1), "a person in a green and yellow dress with a basket on the head")
