//! The clock and the dice, handed in so that a simulation can own them.

use canopus_api::Time;

pub trait Surroundings: Send + Sync + 'static {
    fn now(&self) -> Time;
    fn random(&self) -> u128;
}

/// A version 4 UUID (RFC 9562) of random bits.
pub fn uuid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Five characters for generateName, none of which form words (upstream `rand.String`).
pub fn name_suffix(mut random: u128) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut out = String::with_capacity(5);
    for _ in 0..5 {
        out.push(ALPHABET[(random % ALPHABET.len() as u128) as usize] as char);
        random /= ALPHABET.len() as u128;
    }
    out
}

/// The operating system's clock and random numbers.
pub struct System;

impl Surroundings for System {
    fn now(&self) -> Time {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        // A kernel without random numbers is one on which no secret is safe: stop.
        getrandom::fill(&mut bytes).unwrap_or_else(|e| panic!("the kernel gives no random numbers: {e}"));
        u128::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids_are_version_4() {
        assert_eq!(super::uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(super::uuid(0), "00000000-0000-4000-8000-000000000000");
    }
}
