//! Functions of lists, and of lists as sets.

use super::strings::plain;
use crate::eval::{Context, EvalError, Function, Outcome};
use crate::val::{List, Val};
use std::cmp::Ordering;

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "isSorted" => |_, a| list(a).and_then(|l| is_sorted(l).map(Val::Bool)),
        "sum" => sum,
        "min" => |_, a| list(a).and_then(|l| extreme(l, "min", Ordering::Less)),
        "max" => |_, a| list(a).and_then(|l| extreme(l, "max", Ordering::Greater)),
        "slice" => slice,
        "flatten" => flatten,
        "lists.range" => range,
        "reverse" => |_, a| {
            list(a).map(|l| {
                let mut items: Vec<Val> = l.iter().collect();
                items.reverse();
                items.into()
            })
        },
        "distinct" => |_, a| list(a).map(distinct),
        "sort" => |_, a| list(a).and_then(|l| sort_by(l, l)),
        "@sortByAssociatedKeys" => |_, a| match a {
            [Val::List(items), Val::List(keys)] => sort_by(items, keys),
            _ => Err(EvalError::no_such_overload()),
        },
        "first" => |_, a| list(a).map(|l| Val::Optional(l.get(0).map(std::sync::Arc::new))),
        "last" => |_, a| {
            list(a).map(|l| Val::Optional(l.len().checked_sub(1).and_then(|i| l.get(i)).map(std::sync::Arc::new)))
        },
        "sets.contains" => |_, a| sets(a, contains_all),
        "sets.equivalent" => |_, a| sets(a, |x, y| contains_all(x, y) && contains_all(y, x)),
        "sets.intersects" => |_, a| sets(a, |x, y| x.iter().any(|v| contains(y, &v))),
        _ => return None,
    })
}

fn list<'v, 'a>(args: &'v [Val<'a>]) -> Result<&'v List<'a>, EvalError> {
    match args {
        [Val::List(list)] => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn ordered<'a>(a: &Val<'a>, b: &Val<'a>) -> Result<Ordering, EvalError> {
    a.order(b).ok_or_else(EvalError::no_such_overload)
}

fn is_sorted(list: &List) -> Result<bool, EvalError> {
    let mut previous: Option<Val> = None;
    for item in list.iter() {
        if let Some(previous) = &previous
            && ordered(previous, &item)?.is_gt()
        {
            return Ok(false);
        }
        previous = Some(item);
    }
    Ok(true)
}

fn sum<'a>(context: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let list = list(args)?;
    let zero = match context.overload {
        "list_uint_sum_uint" => Val::Uint(0),
        "list_double_sum_double" => Val::Double(0.0),
        "list_duration_sum_duration" => Val::Duration(0),
        _ => Val::Int(0),
    };
    let Some(add) = super::standard::find("_+_") else { return Err(EvalError::no_such_overload()) };
    let mut total: Option<Val> = None;
    for item in list.iter() {
        total = Some(match total {
            None => item,
            Some(sum) => add(context, &[sum, item])?,
        });
    }
    Ok(total.unwrap_or(zero))
}

fn extreme<'a>(list: &List<'a>, name: &str, wanted: Ordering) -> Outcome<'a> {
    let mut best: Option<Val> = None;
    for item in list.iter() {
        best = Some(match best {
            Some(best) if ordered(&item, &best)? != wanted => best,
            _ => item,
        });
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

pub(crate) fn index_of<'a>(_: &Context<'a, '_>, args: &[Val<'a>], last: bool) -> Outcome<'a> {
    let [Val::List(list), item] = args else { return Err(EvalError::no_such_overload()) };
    let is = |i: &usize| list.get(*i).is_some_and(|v| v.equals(item));
    let found = if last { (0..list.len()).rev().find(is) } else { (0..list.len()).find(is) };
    Ok(Val::Int(found.map_or(-1, |i| i as i64)))
}

fn slice<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::List(list), Val::Int(start), Val::Int(end)] = args else { return Err(EvalError::no_such_overload()) };
    let fail = |why: String| Err(EvalError::new(format!("cannot slice({start}, {end}), {why}")));
    if *start < 0 || *end < 0 {
        return fail("negative indexes not supported".into());
    }
    if start > end {
        return fail("start index must be less than or equal to end index".into());
    }
    if list.len() < *end as usize {
        return fail(format!("list is length {}", list.len()));
    }
    Ok((*start..*end).filter_map(|i| list.get(i as usize)).collect::<Vec<_>>().into())
}

fn flatten<'a>(context: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (list, depth) = match args {
        [Val::List(list)] => (list, 1),
        [Val::List(list), Val::Int(depth)] => (list, *depth),
        _ => return Err(EvalError::no_such_overload()),
    };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut out = Vec::new();
    if !flatten_into(&mut out, list, depth, context.left) {
        return Err(EvalError::over_budget());
    }
    Ok(out.into())
}

/// Goes no deeper than lists are nested, which is bounded. Whether all of it was within `most` items.
fn flatten_into<'a>(out: &mut Vec<Val<'a>>, list: &List<'a>, depth: i64, most: u64) -> bool {
    list.iter().all(|item| match &item {
        Val::List(inner) if depth > 0 => flatten_into(out, inner, depth - 1, most),
        _ => {
            out.push(item);
            out.len() as u64 <= most
        }
    })
}

fn range<'a>(context: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::Int(n)] = args else { return Err(EvalError::no_such_overload()) };
    if u64::try_from(*n).is_ok_and(|n| n > context.left) {
        return Err(EvalError::over_budget());
    }
    Ok((0..*n).map(Val::Int).collect::<Vec<_>>().into())
}

fn contains<'a>(list: &List<'a>, item: &Val<'a>) -> bool {
    list.iter().any(|v| v.equals(item))
}

fn contains_all<'a>(list: &List<'a>, of: &List<'a>) -> bool {
    of.iter().all(|v| contains(list, &v))
}

fn sets<'a>(args: &[Val<'a>], holds: fn(&List<'a>, &List<'a>) -> bool) -> Outcome<'a> {
    match args {
        [Val::List(a), Val::List(b)] => Ok(Val::Bool(holds(a, b))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn distinct<'a>(list: &List<'a>) -> Val<'a> {
    let mut out: Vec<Val> = Vec::new();
    for item in list.iter() {
        if !out.iter().any(|v| v.equals(&item)) {
            out.push(item);
        }
    }
    out.into()
}

fn sort_by<'a>(items: &List<'a>, keys: &List<'a>) -> Outcome<'a> {
    if items.len() != keys.len() {
        let message = format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            items.len(),
            keys.len()
        );
        return Err(EvalError::new(message));
    }
    let keys: Vec<Val> = keys.iter().collect();
    let Some(first) = keys.first() else { return Ok(Vec::new().into()) };
    for key in &keys {
        if key.ty() != first.ty() {
            return Err(EvalError::new("list elements must have the same type"));
        }
        if key.order(key).is_none() && !matches!(key, Val::Double(_)) {
            return Err(EvalError::new(format!("list elements must be comparable: {}", plain(key))));
        }
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| keys[*a].order(&keys[*b]).unwrap_or(Ordering::Equal));
    Ok(order.into_iter().filter_map(|i| items.get(i)).collect::<Vec<_>>().into())
}
