//! Sets of a Job's indexes as text: `0,3-5,7`.

/// How many indexes the text names, which must rise and stay below `completions`.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for fragment in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(fragment, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both sets have. What cannot be read is left out: its own check reports it.
pub fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|fragment| interval(fragment, completions).ok()).collect()
    };
    let (a, b) = (read(a), read(b));
    let (mut i, mut j) = (0, 0);
    while let (Some((a_first, a_end)), Some((b_first, b_end))) = (a.get(i), b.get(j)) {
        if a_first <= b_end && b_first <= a_end {
            return Some(*a_first.max(b_first));
        }
        if a_first <= b_first { i += 1 } else { j += 1 }
    }
    None
}

fn interval(fragment: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| {
        let number =
            text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
    };
    match fragment.split('-').collect::<Vec<_>>()[..] {
        [one] => index(one).map(|i| (i, i)),
        [first, end] => match (index(first)?, index(end)?) {
            (first, end) if first >= end => Err(format!("non-increasing order, previous: {first}, current: {end}")),
            both => Ok(both),
        },
        _ => Err(format!(
            "the fragment {fragment:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_counted() {
        let cases = [
            ("", Ok(0)),
            ("0,3-5,7", Ok(5)),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            ("5-3", Err("non-increasing order, previous: 5, current: 3")),
            ("10", Err("too large index: \"10\"")),
            ("x", Err("cannot convert string to integer for index: \"x\"")),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(count(text, 10), expected.map_err(String::from), "{text}");
        }
    }

    #[test]
    fn sets_overlap() {
        for (a, b, expected) in
            [("0-2,5", "3,4", None), ("0-2,5", "4-6", Some(5)), ("x,3", "3", Some(3)), ("", "1", None)]
        {
            assert_eq!(overlap(a, b, 10), expected, "{a} {b}");
        }
    }
}
