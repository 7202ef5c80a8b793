"""People, second half: families told apart by costumes and silhouettes."""

from __future__ import annotations

from hmcli.world.bodies import Arm
from hmcli.world.space.shapes import Paint
from hmcli.world.subjects import wardrobe as wear
from hmcli.world.subjects.look import Look
from hmcli.world.subjects.palette import BLACK, CREAM, GOLD, STEEL, WHITE, WOOD, Shades
from hmcli.world.subjects.people import HOLDS_UP, LEANS_ON, dressed

STRAW = (0.86, 0.68, 0.24)
FOLDED = Arm(swing=0.06, raised=0.35, bend=1.3, aside=0.10, out=-0.35)


def monk(s: Shades) -> Look:
    """A brown hooded robe with a rope belt, hands together."""
    brown = s.plain((0.42, 0.27, 0.15))
    cord = s.plain(CREAM)
    rope = (
        *wear.belt(cord, 0.108, 0.03, 0.012),
        wear.rod("hips", (0.10, 0.03, 0.02), (0.145, 0.035, -0.22), (0.012, 0.014), cord),
    )
    figure = dressed(
        s, top=brown, bottom=brown, shoes=(0.40, 0.26, 0.14), bulk=1.35, stride=0.52, left=FOLDED, right=FOLDED,
        parts=(*wear.hood(brown), *wear.robe(brown), *rope),
    )  # fmt: skip
    return Look(figure, s.between(0.7, 0.95), "a monk in a brown hooded robe with a rope belt")


def wizard(s: Shades) -> Look:
    """A violet robe hemmed with gold, a pointed hat, a long white beard and a staff."""
    violet, white, gold = s.plain((0.40, 0.16, 0.70)), s.near(WHITE), s.plain(GOLD)
    trim = (wear.disc("hips", (0, 0, -0.385), 0.183, 0.018, gold), *wear.belt(gold, 0.106, 0.03, 0.016))
    orb = wear.ball("right_hand", (0.01, 0, 0.40), (0.040, 0.040, 0.040), s.plain((0.25, 0.85, 0.95)))
    figure = dressed(
        s, top=violet, bottom=violet, shoes=(0.25, 0.10, 0.40), hair=white, bulk=1.35, stride=0.52, right=LEANS_ON,
        parts=(
            *wear.pointed_hat(violet, gold), *wear.beard(Paint(colour=white), 0.17), *wear.robe(violet, 0.185),
            *wear.staff(s.plain(WOOD), -0.50, 0.38), orb, *trim,
        ),
    )  # fmt: skip
    return Look(figure, s.between(0.75, 1.0), "a wizard in a violet robe and a pointed hat with a staff")


def knight(s: Shades) -> Look:
    """Steel armour, a red plume, a blue shield with a white cross, a sword."""
    steel, dark, white = s.plain(STEEL), s.plain((0.42, 0.45, 0.50)), s.plain(WHITE)
    blue, red = s.plain((0.10, 0.22, 0.70)), s.plain((0.85, 0.08, 0.10))
    shield = (
        wear.box("left_hand", (0.03, 0.035, 0.04), (0.100, 0.016, 0.150), blue),
        wear.box("left_hand", (0.03, 0.040, 0.04), (0.022, 0.016, 0.150), white),
        wear.box("left_hand", (0.03, 0.040, 0.07), (0.100, 0.016, 0.022), white),
    )
    head = (
        wear.ball("head", (0.0, 0, 0.004), (0.078, 0.070, 0.090), steel),
        wear.box("head", (0.072, 0, 0.012), (0.012, 0.042, 0.009), Paint(colour=BLACK)),
        wear.rod("head", (0.01, 0, 0.095), (-0.10, 0, 0.085), (0.030, 0.044), red),
    )
    sword = wear.rod("right_hand", (0.0, 0, -0.02), (0.24, 0, -0.16), (0.014, 0.008), s.plain((0.85, 0.88, 0.92)))
    pads = wear.balls("chest", (0, 0.125, 0.01), (0.058, 0.052, 0.052), dark)
    figure = dressed(
        s, top=steel, bottom=steel, sleeve=dark, shins=dark, hands=dark, shoes=(0.42, 0.45, 0.50), bulk=1.2,
        build=(1.08, 1.22), parts=(*head, *shield, sword, pads, *wear.tails(dark, -0.10, 0.110)),
        left=Arm(swing=0.08, raised=0.15, bend=1.2, aside=0.25), right=Arm(swing=0.25),
    )  # fmt: skip
    return Look(figure, s.between(0.85, 1.1), "a knight in steel armour with a blue shield")


def pirate(s: Shades) -> Look:
    """A black three-cornered hat, a dark coat, hooped trousers, a parrot."""
    coat, hoops = s.plain((0.13, 0.14, 0.20)), s.mixed("stripes", (0.86, 0.12, 0.12), WHITE, 0.11)
    gold, green = s.plain(GOLD), s.plain((0.15, 0.72, 0.18))
    black = s.plain(BLACK)
    hat = (
        wear.ball("head", (-0.010, 0, 0.066), (0.098, 0.110, 0.018), gold),
        wear.rod("head", (0.085, 0.0, 0.062), (-0.055, 0.105, 0.100), (0.026, 0.032), black, both=True),
        wear.rod("head", (-0.055, -0.105, 0.100), (-0.055, 0.105, 0.100), (0.032, 0.032), black),
        wear.ball("head", (-0.012, 0, 0.090), (0.064, 0.064, 0.058), black),
        wear.ball("head", (0.060, 0.022, 0.010), (0.013, 0.019, 0.017), black),
    )
    shirt = wear.ball("chest", (0.055, 0, -0.07), (0.045, 0.04, 0.11), s.plain(WHITE))
    parrot = (
        wear.rod("chest", (0.0, 0.125, 0.09), (-0.05, 0.125, 0.0), (0.036, 0.014), green),
        wear.ball("chest", (0.008, 0.125, 0.125), (0.028, 0.024, 0.028), s.plain((0.90, 0.15, 0.10))),
        wear.ball("chest", (0.036, 0.125, 0.118), (0.014, 0.009, 0.012), gold),
    )
    figure = dressed(
        s, top=coat, bottom=hoops, shins=s.plain((0.30, 0.17, 0.09)), shoes=(0.30, 0.17, 0.09),
        parts=(*hat, *parrot, *wear.belt(gold, 0.106), shirt, *wear.beard(s.plain(BLACK), 0.03)),
    )  # fmt: skip
    return Look(figure, s.between(0.95, 1.25), "a pirate in a black hat and red striped trousers with a parrot")


def cowboy(s: Shades) -> Look:
    """A huge brown hat, a red scarf, a tan shirt, a leather vest and chaps."""
    hat, leather = s.plain((0.36, 0.20, 0.10)), s.plain((0.55, 0.33, 0.15))
    red = s.plain((0.86, 0.12, 0.10))
    brim = (
        wear.ball("head", (0, 0, 0.058), (0.165, 0.110, 0.012), hat),
        wear.balls("head", (0, 0.105, 0.075), (0.130, 0.034, 0.014), hat, (0.7, 0.0)),
        wear.ball("head", (0, 0, 0.095), (0.072, 0.058, 0.062), hat),
        wear.disc("head", (0, 0, 0.070), 0.068, 0.010, red),
    )
    scarf = wear.cone("chest", (0.062, 0, 0.0), 0.060, 0.055, red, (0.0, 3.0))
    vest = wear.balls("chest", (0.012, 0.058, -0.11), (0.098, 0.060, 0.130), leather)
    figure = dressed(
        s, top=s.plain((0.85, 0.72, 0.48)), bottom=leather,
        shins=s.mixed("tips", (0.55, 0.33, 0.15), (0.30, 0.16, 0.08), 0.22), shoes=(0.36, 0.20, 0.10),
        parts=(*brim, scarf, vest, *wear.belt(s.plain(WOOD), 0.107)), bulk=1.05,
        left=Arm(swing=0.35, aside=0.35, bend=0.5), right=Arm(swing=0.35, aside=0.35, bend=0.5),
    )  # fmt: skip
    return Look(figure, s.between(0.95, 1.25), "a cowboy in a wide brown hat and leather chaps with a red scarf")


def astronaut(s: Shades) -> Look:
    """A bulky white suit, a round helmet with a golden visor, a pack on the back."""
    white, grey, orange = s.plain(WHITE), s.plain((0.70, 0.72, 0.75)), s.mixed("tips", WHITE, (0.95, 0.45, 0.10), 0.14)
    parts = (
        wear.ball("head", (0.005, 0, 0.005), (0.112, 0.108, 0.112), white),
        wear.ball("head", (0.050, 0, 0.008), (0.078, 0.078, 0.072), s.plain((0.72, 0.48, 0.10))),
        wear.box("chest", (-0.150, 0, -0.07), (0.062, 0.120, 0.165), grey),
        wear.box("chest", (0.095, 0, -0.09), (0.030, 0.065, 0.045), s.plain((0.20, 0.35, 0.70))),
        wear.disc("chest", (0.003, 0, 0.055), 0.078, 0.018, grey),
        *wear.belt(s.plain((0.95, 0.45, 0.10)), 0.130, 0.03, 0.014),
    )
    apart = Arm(swing=0.3, aside=0.38, bend=0.5, out=0.15)
    figure = dressed(
        s, top=white, bottom=white, sleeve=orange, shins=orange, hands=grey, shoes=(0.55, 0.57, 0.60), parts=parts,
        build=(1.22, 1.32), bulk=1.7, left=apart, right=apart, stride=0.66,
    )  # fmt: skip
    return Look(figure, s.between(0.7, 0.95), "an astronaut in a white suit with a golden visor")


def diver(s: Shades) -> Look:
    """A black wetsuit with a cyan chest, a mask, two tanks, flippers."""
    suit = s.plain((0.10, 0.11, 0.14))
    cyan, yellow = (0.05, 0.75, 0.85), s.plain((0.97, 0.85, 0.10))
    parts = (
        wear.ball("head", (-0.012, 0, 0.006), (0.070, 0.064, 0.084), suit),
        wear.box("head", (0.058, 0, 0.014), (0.018, 0.046, 0.026), s.plain(cyan)),
        wear.rod("head", (0.050, -0.055, -0.04), (-0.010, -0.072, 0.13), (0.011, 0.011), yellow),
        wear.rod("chest", (-0.125, 0.048, -0.24), (-0.125, 0.048, 0.02), (0.046, 0.046), yellow, both=True),
        *wear.belt(yellow, 0.100, 0.03, 0.016),
    )
    figure = dressed(
        s, top=s.mixed("front", (0.10, 0.11, 0.14), cyan, 1.0), sleeve=s.plain(cyan), bottom=suit, hands=suit,
        shins=s.mixed("tips", (0.10, 0.11, 0.14), cyan, 0.20), shoes=(0.97, 0.85, 0.10), shoe=2.1, parts=parts,
        stride=0.6, build=(0.92, 1.05),
    )  # fmt: skip
    return Look(figure, s.between(0.6, 0.85), "a diver in a black and blue suit with yellow tanks and flippers")


def clown(s: Shades) -> Look:
    """Red curls, a red nose, a yellow and blue suit, a ruff and long shoes."""
    suit = s.mixed("checks", (0.98, 0.82, 0.12), (0.15, 0.35, 0.90), 0.26)
    red, white = s.plain((0.92, 0.12, 0.08)), s.plain(WHITE)
    parts = (
        wear.balls("head", (-0.012, 0.070, 0.022), (0.055, 0.042, 0.058), red),
        wear.ball("head", (-0.050, 0, 0.030), (0.040, 0.060, 0.060), red),
        wear.ball("head", (0.078, 0, -0.012), (0.020, 0.020, 0.020), red),
        wear.cone("head", (0.0, 0.0, 0.115), 0.036, 0.050, s.plain((0.15, 0.35, 0.90))),
        wear.disc("chest", (0.006, 0, 0.055), 0.120, 0.018, white),
        wear.disc("chest", (0.006, 0, 0.050), 0.085, 0.030, red),
    )
    skin = s.near((0.95, 0.88, 0.84))
    figure = dressed(
        s, top=suit, bottom=suit, skin=skin, hair=skin, shoes=(0.92, 0.12, 0.08), shoe=1.8, parts=parts, bulk=1.5,
        build=(1.12, 1.28), left=Arm(swing=0.6, aside=0.4), right=Arm(swing=0.6, aside=0.4),
    )  # fmt: skip
    return Look(figure, s.between(0.8, 1.1), "a clown in a yellow and blue checked suit with red hair")


def ninja(s: Shades) -> Look:
    """All in black, bent low and running, a red scarf streaming and a sword on the back."""
    black, red = s.plain((0.09, 0.09, 0.12)), s.plain((0.88, 0.08, 0.12))
    parts = (
        wear.ball("head", (-0.006, 0, 0.036), (0.071, 0.062, 0.056), black),
        wear.ball("head", (0.018, 0, -0.040), (0.053, 0.050, 0.044), black),
        wear.disc("head", (0, 0, 0.034), 0.072, 0.010, red),
        wear.rod("chest", (-0.02, 0.0, 0.040), (-0.27, 0.07, -0.06), (0.048, 0.026), red),
        wear.rod("chest", (-0.115, 0.14, -0.22), (-0.115, -0.17, 0.16), (0.012, 0.012), s.plain(STEEL)),
        *wear.belt(red, 0.100, 0.03, 0.018),
    )
    back = Arm(swing=0.10, raised=-1.0, bend=0.15, aside=0.25)
    figure = dressed(
        s, top=black, bottom=black, shoes=(0.09, 0.09, 0.12), hair=BLACK, parts=parts, lean=0.45, stride=1.05, duty=0.4,
        left=back, right=back, build=(0.9, 1.02),
    )  # fmt: skip
    return Look(figure, s.between(1.7, 2.3), "a ninja in black with a red scarf")


def king(s: Shades) -> Look:
    """A golden crown, a red cape trimmed with white fur, a sceptre."""
    red, white, gold = s.plain((0.78, 0.05, 0.10)), s.plain(WHITE), s.plain(GOLD)
    tunic = s.plain((0.62, 0.10, 0.44))
    fur = (
        wear.ball("chest", (-0.012, 0, 0.028), (0.112, 0.158, 0.046), white),
        wear.ball("hips", (-0.175, 0, -0.375), (0.034, 0.150, 0.034), white),
    )
    mantle = wear.ball("hips", (-0.122, 0, -0.06), (0.055, 0.185, 0.385), red, (0.0, 0.12))
    grey = s.near((0.55, 0.50, 0.45))
    sceptre = (*wear.staff(gold, -0.10, 0.20), wear.ball("right_hand", (0.01, 0, 0.22), (0.032, 0.032, 0.032), red))
    figure = dressed(
        s, top=tunic, bottom=white, shoes=(0.70, 0.50, 0.15), hair=grey, build=(1.1, 1.25), right=HOLDS_UP, stride=0.62,
        parts=(
            *wear.crown(gold), *wear.beard(Paint(colour=grey), 0.06), *fur, mantle, *sceptre, *wear.belt(gold, 0.115),
            *wear.skirt(tunic, -0.16, 0.165),
        ),
    )  # fmt: skip
    return Look(figure, s.between(0.75, 1.0), "a king with a golden crown and a red cape")


def bride(s: Shades) -> Look:
    """A wide white dress, a veil down the back, a bouquet."""
    white, skin = s.plain((0.97, 0.96, 0.95)), s.skin()
    hair = s.near((0.26, 0.16, 0.09))
    lace = s.plain((0.86, 0.90, 0.96))
    veil = (
        wear.ball("head", (-0.120, 0, -0.17), (0.030, 0.120, 0.25), lace, (0.0, 0.18)),
        wear.ball("head", (-0.022, 0, 0.034), (0.066, 0.066, 0.064), lace),
    )
    flowers = (
        wear.ball("right_hand", (0.03, 0.05, 0.02), (0.050, 0.055, 0.045), s.plain((0.95, 0.45, 0.62))),
        wear.ball("right_hand", (0.02, 0.05, -0.035), (0.026, 0.026, 0.040), s.plain((0.25, 0.55, 0.20))),
    )
    holds = Arm(swing=0.03, raised=0.15, bend=1.2, aside=0.14, out=-0.45)
    figure = dressed(
        s, top=white, upper=Paint(colour=skin), bottom=white, skin=skin, hair=hair, shoes=(0.95, 0.94, 0.92),
        build=(0.86, 0.96), height=(1.58, 1.75), stride=0.5, left=holds, right=holds,
        parts=(*wear.bun(Paint(colour=hair)), *veil, *flowers, *wear.skirt(white, wear.GROUND + 0.02, 0.255, 0.22)),
    )  # fmt: skip
    return Look(figure, s.between(0.65, 0.9), "a bride in a wide white dress with a veil")


def ballerina(s: Shades) -> Look:
    """A flat pink tutu, pale legs, hair in a bun, arms spread."""
    pink, skin = s.plain((0.96, 0.56, 0.72)), s.near((0.91, 0.73, 0.60))
    hair = Paint(colour=s.near((0.20, 0.12, 0.08)))
    tutu = (
        wear.disc("hips", (0, 0, 0.035), 0.235, 0.012, pink),
        wear.cone("hips", (0, 0, 0.075), 0.200, 0.040, s.plain((0.99, 0.75, 0.85))),
    )
    spread = Arm(swing=0.15, raised=0.25, bend=-0.1, aside=1.05, out=1.25)
    figure = dressed(
        s, top=pink, upper=Paint(colour=skin), bottom=s.plain((0.98, 0.84, 0.86)), skin=skin, hair=hair.colour,
        shoes=(0.95, 0.45, 0.62), build=(0.84, 0.94), parts=(*wear.bun(hair), *tutu), left=spread, right=spread,
        bulk=0.9, height=(1.58, 1.75),
    )  # fmt: skip
    return Look(figure, s.between(1.0, 1.3), "a ballerina in a pink tutu")


def scarecrow(s: Shades) -> Look:
    """Arms held straight out, a sack for a head, patched clothes, straw at the ends."""
    sack, straw = s.near((0.80, 0.68, 0.48)), s.plain(STRAW)
    shirt = s.mixed("plaid", (0.72, 0.36, 0.10), (0.24, 0.36, 0.22), 0.17)
    parts = (
        wear.cone("head", (0, 0, 0.105), 0.074, 0.070, s.plain((0.30, 0.28, 0.20)), (0.0, -0.25)),
        wear.disc("head", (0, 0, 0.046), 0.150, 0.008, s.plain((0.30, 0.28, 0.20))),
        wear.ball("left_hand", (0, 0.02, 0), (0.045, 0.075, 0.045), straw),
        wear.ball("right_hand", (0, -0.02, 0), (0.045, 0.075, 0.045), straw),
        wear.disc("chest", (0.006, 0, 0.055), 0.085, 0.022, straw),
        *wear.skirt(straw, -0.12, 0.125, 0.30),
    )
    stiff = Arm(swing=0.06, bend=0.0, aside=1.45, out=1.5)
    figure = dressed(
        s, top=shirt, bottom=s.plain((0.36, 0.42, 0.60)), shins=s.mixed("tips", (0.36, 0.42, 0.60), STRAW, 0.25),
        skin=sack, hair=sack, shoes=STRAW, parts=parts, left=stiff, right=stiff, bulk=1.2, stride=0.6,
    )  # fmt: skip
    return Look(figure, s.between(0.7, 1.0), "a scarecrow in a brown plaid shirt with its arms held out")


def robot(s: Shades) -> Look:
    """Boxes of mint metal with red eyes and antennas."""
    metal, dark, red = s.plain((0.42, 0.78, 0.74)), s.plain((0.26, 0.28, 0.32)), s.plain((0.98, 0.15, 0.10))
    parts = (
        wear.box("head", (0.0, 0, 0.004), (0.082, 0.088, 0.078), metal),
        wear.box("head", (0.078, 0, 0.014), (0.010, 0.072, 0.026), dark),
        wear.balls("head", (0.086, 0.036, 0.014), (0.012, 0.019, 0.019), red),
        wear.rod("head", (0, 0.06, 0.07), (0, 0.085, 0.16), (0.008, 0.016), red, both=True),
        wear.box("chest", (0, 0, -0.085), (0.090, 0.125, 0.135), metal),
        wear.box("chest", (0.085, 0, -0.085), (0.014, 0.080, 0.060), dark),
        wear.disc("chest", (0.098, 0.03, -0.08), 0.022, 0.010, red, (0.0, wear.FLAT)),
        wear.disc("chest", (0.098, -0.03, -0.08), 0.022, 0.010, s.plain((0.98, 0.85, 0.15)), (0.0, wear.FLAT)),
        wear.box("hips", (0, 0, -0.01), (0.075, 0.100, 0.045), dark),
    )
    stiff = Arm(swing=0.3, bend=1.2, aside=0.22)
    skin = s.near((0.42, 0.78, 0.74))
    figure = dressed(
        s, top=dark, sleeve=metal, bottom=dark, shins=metal, skin=skin, hair=skin, shoes=(0.26, 0.28, 0.32),
        hands=s.plain((0.26, 0.28, 0.32)), parts=parts, left=stiff, right=stiff, bulk=1.2, stride=0.6, build=(1.0, 1.1),
    )  # fmt: skip
    return Look(figure, s.between(0.7, 1.0), "a mint green robot with red eyes")
