//! Whether a history of one key is linearizable: the algorithm of Wing and Gong with Lowe's memory of what was tried
//! ("Testing for linearizability", 2017).

use std::collections::HashSet;

/// What a key holds: the number of the write that made it so. Each write has a number of its own.
pub(super) type State = Option<u64>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    Get,
    Put(u64),
    /// Put the second if the key holds the first.
    Swap(State, u64),
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Output {
    Got(State),
    Written,
    /// The key held this.
    Refused(State),
}

/// One operation. Times are ticks of one counter, no two alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) call: u64,
    /// `u64::MAX` if it never returned.
    pub(super) end: u64,
    pub(super) input: Input,
    /// None: nobody knows. It may happen at any time after its call, or never, which is as good as at the very end.
    pub(super) output: Option<Output>,
}

/// What the key holds after the operation, if the operation may end like this in `state`.
fn step(state: State, operation: &Operation) -> Option<State> {
    let (output, after) = match operation.input {
        Input::Get => (Output::Got(state), state),
        Input::Put(new) => (Output::Written, Some(new)),
        Input::Swap(from, new) if from == state => (Output::Written, Some(new)),
        Input::Swap(..) => (Output::Refused(state), state),
        Input::Delete if state.is_some() => (Output::Written, None),
        Input::Delete => (Output::Refused(None), None),
    };
    operation.output.is_none_or(|seen| seen == output).then_some(after)
}

/// Calls and returns in the order of their times, linked, so that operations can be taken out and put back.
struct Entries {
    /// Of (time, operation, whether it is the call).
    entries: Vec<(u64, usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where each operation's call and return are.
    places: Vec<(usize, usize)>,
}

impl Entries {
    fn new(operations: &[Operation]) -> Entries {
        // The first is the list's head.
        let mut entries = vec![(0, usize::MAX, false)];
        for (i, operation) in operations.iter().enumerate() {
            entries.push((operation.call, i, true));
            entries.push((operation.end, i, false));
        }
        entries[1..].sort_unstable_by_key(|(time, operation, call)| (*time, !*call, *operation));
        let count = entries.len();
        let mut places = vec![(0, 0); operations.len()];
        for (at, (_, operation, call)) in entries.iter().enumerate().skip(1) {
            if *call { places[*operation].0 = at } else { places[*operation].1 = at }
        }
        let next = (1..count).chain([0]).collect();
        let previous = std::iter::once(count - 1).chain(0..count - 1).collect();
        Entries { entries, next, previous, places }
    }

    fn lift(&mut self, operation: usize) {
        let (call, end) = self.places[operation];
        for at in [call, end] {
            let (before, after) = (self.previous[at], self.next[at]);
            self.next[before] = after;
            self.previous[after] = before;
        }
    }

    fn unlift(&mut self, operation: usize) {
        let (call, end) = self.places[operation];
        for at in [end, call] {
            let (before, after) = (self.previous[at], self.next[at]);
            self.next[before] = at;
            self.previous[after] = at;
        }
    }
}

/// Whether there is an order of the operations that explains every answer and keeps who ended before whom began.
pub(super) fn linearizable(operations: &[Operation]) -> bool {
    let mut list = Entries::new(operations);
    let mut done = vec![0_u64; operations.len().div_ceil(64)];
    let mut tried: HashSet<(Box<[u64]>, State)> = HashSet::new();
    let mut path: Vec<(usize, State)> = Vec::new();
    let mut state = None;
    let mut at = list.next[0];
    while list.next[0] != 0 {
        let (_, operation, call) = list.entries[at];
        if call {
            let bit = (operation / 64, 1_u64 << (operation % 64));
            if let Some(after) = step(state, &operations[operation]) {
                done[bit.0] |= bit.1;
                if tried.insert((done.clone().into(), after)) {
                    path.push((operation, state));
                    state = after;
                    list.lift(operation);
                    at = list.next[0];
                    continue;
                }
                done[bit.0] &= !bit.1;
            }
            at = list.next[at];
            continue;
        }
        // An operation has returned that could not be placed: what was placed last must go elsewhere.
        let Some((operation, before)) = path.pop() else { return false };
        done[operation / 64] &= !(1_u64 << (operation % 64));
        state = before;
        list.unlift(operation);
        at = list.next[list.places[operation].0];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(call: u64, end: u64, input: Input, output: Output) -> Operation {
        Operation { call, end, input, output: Some(output) }
    }

    #[test]
    fn histories() {
        use Input::*;
        use Output::*;
        let lost = |call, input| Operation { call, end: u64::MAX, input, output: None };
        let cases: &[(&str, bool, Vec<Operation>)] = &[
            ("nothing", true, vec![]),
            ("in order", true, vec![op(1, 2, Put(1), Written), op(3, 4, Get, Got(Some(1)))]),
            ("a stale read", false, vec![op(1, 2, Put(1), Written), op(3, 4, Get, Got(None))]),
            ("a read beside a write", true, vec![op(1, 4, Put(1), Written), op(2, 3, Get, Got(None))]),
            (
                "time turns back",
                false,
                vec![op(1, 8, Put(1), Written), op(2, 3, Get, Got(Some(1))), op(4, 5, Get, Got(None))],
            ),
            (
                "two swaps of one value",
                false,
                vec![
                    op(1, 2, Put(1), Written),
                    op(3, 6, Swap(Some(1), 2), Written),
                    op(4, 5, Swap(Some(1), 3), Written),
                ],
            ),
            (
                "one is refused",
                true,
                vec![
                    op(1, 2, Put(1), Written),
                    op(3, 6, Swap(Some(1), 2), Refused(Some(3))),
                    op(4, 5, Swap(Some(1), 3), Written),
                ],
            ),
            ("a write that was lost", false, vec![op(1, 2, Put(1), Written), op(3, 4, Delete, Refused(None))]),
            ("an unknown end: it happened", true, vec![lost(1, Put(1)), op(2, 3, Get, Got(Some(1)))]),
            ("it happened later", true, vec![lost(1, Put(1)), op(2, 3, Get, Got(None)), op(4, 5, Get, Got(Some(1)))]),
            ("it never did", true, vec![lost(1, Put(1)), op(2, 3, Get, Got(None))]),
            (
                "it happened and was undone",
                false,
                vec![lost(1, Put(1)), op(2, 3, Get, Got(Some(1))), op(4, 5, Get, Got(None))],
            ),
        ];
        for (name, expected, history) in cases {
            assert_eq!(linearizable(history), *expected, "{name}");
        }
    }
}
