//! Random numbers that follow from a seed, so that a failure can be repeated.

/// A linear congruential generator of which the upper bits are used.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }

    /// Returns a number in [0, end); `end` is at least 1 and below 2^32.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Returns a name that, with high probability, no earlier case has used.
    pub fn name(&mut self) -> String {
        format!("{:08x}", self.next())
    }

    /// Returns random letters `a` and `b`: on such texts many regular expressions need large state.
    pub fn letters(&mut self, count: usize) -> String {
        (0..count).map(|_| if self.next().is_multiple_of(2) { 'a' } else { 'b' }).collect()
    }
}

/// The seed of this run: SG_SEED, otherwise the time.
pub fn seed() -> u64 {
    let asked = std::env::var("SG_SEED").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or_else(crate::bodies::now_ms)
}
