//! Invalid inputs derived from valid ones.
//!
//! Intuition: random bytes are refused at the first of them; an input that reaches deep into a decoder is
//! nearly valid. So an input is a valid one, or two of them combined, with a few changes that decoders tend
//! to mishandle: a bit, a token, a cut, a repetition, a number at the edge of its type. Invariant: an input
//! follows from seed, target and round alone, on every machine.

/// Maximum bytes of an input; the time limit of a call is meant for this size.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// Maximum number of changes of one input.
const CHANGES_MAX: u64 = 6;

/// One in this number of inputs is repeated up to the maximum length.
const LONG_EVERY: u64 = 256;

/// Marsaglia's xorshift followed by a multiplication.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Returns the generator for one round of one target.
    pub fn new(seed: u64, target: &str, round: u64) -> Dice {
        let place = target.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut dice = Dice((seed ^ place ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        // Generators of successive rounds begin with similar numbers, so the first ones are discarded.
        for _ in 0..4 {
            dice.roll();
        }
        dice
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number in `[0, end)`, or 0 if the range is empty.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 16) % end.max(1)
    }

    fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    fn pick<'t, T>(&mut self, all: &'t [T]) -> Option<&'t T> {
        all.get(self.place(all.len()))
    }

    /// Returns a range within this length; short ranges are more frequent.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.place(length + 1);
        let most = [4, 16, 64, length][self.place(4)];
        start..(start + self.place(most + 1)).min(length)
    }
}

/// Numbers at which types and limits end, as texts.
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "-1",
    "1",
    "127",
    "255",
    "256",
    "32768",
    "65535",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e-400",
    "1e999",
    "0.1",
    "1793491200000",
];

/// Characters of more than one byte, and characters that control a terminal.
const CHARACTERS: [&str; 11] =
    ["ä", "日", "🙂", "\u{202e}", "\u{feff}", "\u{0}", "\u{1b}[2J", "\u{7f}", "\u{85}", "\r\n", "\t"];

/// Returns the input of a round: a valid one, changed.
pub fn input(dice: &mut Dice, seeds: &[Vec<u8>], tokens: &[&str]) -> Vec<u8> {
    let mut bytes = dice.pick(seeds).cloned().unwrap_or_default();
    for _ in 0..=dice.below(CHANGES_MAX) {
        change(dice, &mut bytes, seeds, tokens);
        bytes.truncate(INPUT_BYTES_MAX);
    }
    if dice.below(LONG_EVERY) == 0 {
        let part = dice.range(bytes.len());
        repeat(&mut bytes, part, INPUT_BYTES_MAX);
    }
    bytes
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], tokens: &[&str]) {
    let at = dice.place(bytes.len() + 1);
    match dice.below(14) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1u8 << dice.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = dice.roll() as u8;
            }
        }
        3 | 4 => {
            let token = dice.pick(tokens).copied().unwrap_or_default();
            bytes.splice(at..at, token.bytes());
        }
        5 => {
            let token = dice.pick(tokens).copied().unwrap_or_default();
            let part = dice.range(bytes.len());
            bytes.splice(part, token.bytes());
        }
        6 => {
            // Joins the beginning of this input with the end of another.
            let other = dice.pick(seeds).map_or(&[][..], Vec::as_slice);
            let from = dice.place(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        7 => bytes.truncate(at),
        8 => {
            let part = dice.range(bytes.len());
            bytes.drain(part);
        }
        9 => {
            let part = dice.range(bytes.len());
            let times = dice.place(64) + 1;
            let most = bytes.len() + part.len() * times;
            repeat(bytes, part, most.min(INPUT_BYTES_MAX));
        }
        10 | 11 => number(dice, bytes, at),
        12 => edge(dice, bytes, at),
        _ => {
            let character = dice.pick(&CHARACTERS).copied().unwrap_or_default();
            bytes.splice(at..at, character.bytes());
        }
    }
}

/// Repeats a part in place as often as fits into `length` bytes.
fn repeat(bytes: &mut Vec<u8>, part: std::ops::Range<usize>, length: usize) {
    let one = bytes[part.clone()].to_vec();
    if one.is_empty() || bytes.len() >= length {
        return;
    }
    let times = (length - bytes.len()) / one.len();
    bytes.splice(part.end..part.end, one.repeat(times));
}

/// Replaces the next number at or after `at` by another.
fn number(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = bytes[at..].iter().position(is_digit).map(|distance| at + distance) else { return };
    let length = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
    let number = dice.pick(&NUMBERS).copied().unwrap_or_default();
    bytes.splice(start..start + length, number.bytes());
}

/// Writes a binary number at the edge of its type, in one, two, four or eight bytes.
fn edge(dice: &mut Dice, bytes: &mut [u8], at: usize) {
    let width = [1, 2, 4, 8][dice.place(4)];
    let Some(part) = bytes.get_mut(at..at + width) else { return };
    let number: u64 = [0, 1, 0x7f, 0x80, 0xff, u64::MAX >> 1, 1 << 63, u64::MAX][dice.place(8)];
    let eight = if dice.below(2) == 0 { number.to_be_bytes() } else { number.to_le_bytes() };
    part.copy_from_slice(if dice.below(2) == 0 { &eight[..width] } else { &eight[8 - width..] });
}
