//! Feeds each target its corpus and what becomes of that under mutation.
//!
//! `CANOPUS_SOAK_FUZZ` is for how many seconds each target runs (else some thousand inputs), `CANOPUS_SOAK_SEED` makes a run
//! repeatable. An input that fails is printed: it belongs into `corpus/<target>`, one file each.

use canopus_fuzz::{TARGETS, Target};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

const INPUTS: u64 = 3_000;
const LONGEST: usize = 4096;
/// What a target may hold at once for an input of at most [`LONGEST`] bytes.
const MEMORY: usize = 64 << 20;

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn held(change: impl Fn(usize) -> usize) {
    // A thread that ends has no counters any more, and nothing to be held against.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = change(now);
        held.set((now, most.max(now)));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        held(|now| now + layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        held(|now| now.saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let length = random.below(32).min(input.len() - at);
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.below(256) as u8,
        2 => drop(input.drain(at..at + length)),
        3 => {
            let piece = input[at..at + length].to_vec();
            let copies = 1 + random.below(64);
            (0..copies).for_each(|_| drop(input.splice(at..at, piece.iter().copied())));
        }
        4 => {
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        5 => {
            let word = words[random.below(words.len())].repeat(1 + random.below(4) * random.below(200));
            drop(input.splice(at..at, word.bytes()));
        }
        _ => drop(input.splice(at..at, words[random.below(words.len())].bytes())),
    }
    input.truncate(LONGEST);
}

/// Runs one input; says what went wrong.
fn run(target: &Target, input: &[u8]) -> Result<(), String> {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let run = target.run;
    let panicked = catch_unwind(|| run(input)).is_err();
    let most = HELD.with(|held| held.get().1) - before;
    if panicked {
        return Err("it panicked".into());
    }
    if most > MEMORY { Err(format!("it took {most} bytes")) } else { Ok(()) }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new("corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn every_target_bears_everything() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("CANOPUS_SOAK_FUZZ").map(Duration::from_secs);
    let seed = number("CANOPUS_SOAK_SEED").unwrap_or(1);
    for target in TARGETS {
        let corpus = corpus(target.name);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        let mut random = Random(seed);
        let (started, mut inputs) = (Instant::now(), 0);
        let check = |input: &[u8]| {
            if let Err(why) = run(target, input) {
                panic!("{}: {why}, given {:?}", target.name, String::from_utf8_lossy(input));
            }
        };
        corpus.iter().for_each(|input| check(input));
        while seconds.map_or(inputs < INPUTS, |seconds| started.elapsed() < seconds) {
            let mut input = corpus[random.below(corpus.len())].clone();
            let other = &corpus[random.below(corpus.len())];
            for _ in 0..=random.below(8) {
                mutate(&mut input, other, target.words, &mut random);
            }
            check(&input);
            inputs += 1;
        }
        println!("{}: {inputs} inputs", target.name);
    }
}
