//! Maps that expressions make.

use crate::eval::EvalError;
use crate::val::{Map, Val};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries in the order in which they came, found by key.
#[derive(Clone, Debug, Default)]
pub struct Made<'a> {
    entries: Vec<(Val<'a>, Val<'a>)>,
    index: BTreeMap<Key, usize>,
}

/// Keys that are equal are one, whatever their types of number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Bool(bool),
    Number(i128),
    Text(Arc<str>),
}

impl Key {
    fn of(value: &Val) -> Option<Key> {
        Some(match value {
            Val::Bool(b) => Key::Bool(*b),
            Val::Int(i) => Key::Number(i128::from(*i)),
            Val::Uint(u) => Key::Number(i128::from(*u)),
            Val::Double(d) if d.fract() == 0.0 && d.abs() < 1.0e30 => Key::Number(*d as i128),
            Val::Str(s) => Key::Text((**s).into()),
            _ => return None,
        })
    }
}

impl<'a> Made<'a> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, key: &Val) -> Option<Val<'a>> {
        self.index.get(&Key::of(key)?).map(|i| self.entries[*i].1.clone())
    }

    pub(crate) fn field(&self, name: &str) -> Option<Val<'a>> {
        self.index.get(&Key::Text(name.into())).map(|i| self.entries[*i].1.clone())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Val<'a>, Val<'a>)> {
        self.entries.iter()
    }

    pub(crate) fn insert(&mut self, key: Val<'a>, value: Val<'a>) -> Result<(), EvalError> {
        let Some(known) = Key::of(&key) else {
            return Err(EvalError::new(format!("unsupported key type: {}", key.ty().name())));
        };
        if self.index.contains_key(&known) {
            let shown = crate::library::strings::plain(&key);
            return Err(EvalError::new(format!("insert failed: key {shown} already exists")));
        }
        self.index.insert(known, self.entries.len());
        self.entries.push((key, value));
        Ok(())
    }
}

impl<'a> Map<'a> {
    /// A map of these entries; of equal keys the last counts.
    pub(crate) fn made(entries: Vec<(Val<'a>, Val<'a>)>) -> Result<Map<'a>, EvalError> {
        let mut made = Made::default();
        for (key, value) in entries {
            match Key::of(&key).and_then(|k| made.index.get(&k).copied()) {
                Some(i) => made.entries[i].1 = value,
                None => made.insert(key, value)?,
            }
        }
        Ok(Map::Made(Arc::new(made)))
    }

    /// The entries as something that can be added to.
    pub(crate) fn into_made(self) -> Result<Made<'a>, EvalError> {
        match self {
            Map::Made(made) => Ok(Arc::unwrap_or_clone(made)),
            json => {
                let mut made = Made::default();
                for (key, value) in json.iter() {
                    made.insert(key, value)?;
                }
                Ok(made)
            }
        }
    }
}
