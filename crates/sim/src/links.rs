//! Links between peers: loss, delay, repetition, and cuts, also in one direction.

use crate::queue::{Place, Time};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// How bad the links are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// Part of packets that is lost.
    pub loss: f64,
    /// Part that comes twice.
    pub repeat: f64,
    /// Part that comes seconds late.
    pub late: f64,
}

/// All links.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Directions that carry nothing.
    cut: BTreeSet<(Place, Place)>,
    /// How bad it is now.
    pub weather: Weather,
}

impl Links {
    /// Whether packets can go from one to the other.
    pub fn is_open(&self, from: Place, to: Place) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether nothing is cut and nothing is lost.
    pub fn are_well(&self) -> bool {
        self.cut.is_empty() && self.weather == Weather::default()
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Mends everything; the pairs that were cut in any direction.
    pub fn mend(&mut self) -> BTreeSet<(Place, Place)> {
        std::mem::take(&mut self.cut).into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect()
    }

    /// After how long the copies of a packet arrive: none, one, or two. One draw decides all, since packets are many.
    pub fn arrivals(&self, chance: &mut ChaCha8Rng) -> [Option<Time>; 2] {
        let drawn = chance.next_u64();
        let part = |number: u32| (drawn >> (16 * number)) & 0xffff;
        let happens = |number: u32, odds: f64| (part(number) as f64) < odds * 65_536.0;
        if happens(0, self.weather.loss) {
            return [None, None];
        }
        let delay = 1 + part(3) % 60;
        let late = if happens(1, self.weather.late) { 500 + part(3) % 7_500 } else { delay };
        let again = happens(2, self.weather.repeat).then(|| 1 + (part(3) / 60) % 60);
        [Some(late), again]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn bad_weather_loses_repeats_and_delays_its_part() {
        let weather = Weather { loss: 0.1, repeat: 0.05, late: 0.02 };
        let links = Links { weather, ..Links::default() };
        let mut chance = ChaCha8Rng::seed_from_u64(1);
        let packets: Vec<_> = (0..20_000).map(|_| links.arrivals(&mut chance)).collect();
        let part = |is: &dyn Fn(&[Option<Time>; 2]) -> bool| packets.iter().filter(|packet| is(packet)).count() as f64 / 20_000.0;
        for (found, expected) in [
            (part(&|packet| packet[0].is_none()), 0.1),
            (part(&|packet| packet[1].is_some()), 0.045),
            (part(&|packet| packet[0].is_some_and(|delay| delay > 100)), 0.018),
        ] {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        }
        let calm = Links::default();
        assert!((0..1000).all(|_| matches!(calm.arrivals(&mut chance), [Some(1..=60), None])));
    }
}
