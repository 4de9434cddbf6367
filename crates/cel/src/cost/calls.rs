//! What calls may cost, by function and overload.

use super::estimate::Coster;
use super::{CHECK, CostEstimate, LIST, REGEX_FACTOR, STRING_FACTOR, Size, selector};
use crate::ast::{Expr, Kind, Literal};
use crate::types::Type;

/// The longest regular expression that stands behind a format.
const FORMAT_REGEX: f64 = 128.0;
/// The longest name of a format.
const FORMAT_NAME: u64 = 64;

pub(super) struct CallEstimate {
    pub(super) cost: CostEstimate,
    pub(super) size: Option<Size>,
}

fn only(cost: CostEstimate) -> Option<CallEstimate> {
    Some(CallEstimate { cost, size: None })
}

fn sized(cost: CostEstimate, size: Size) -> Option<CallEstimate> {
    Some(CallEstimate { cost, size: Some(size) })
}

/// What the call costs with its arguments, but for the target.
pub(super) fn estimate(
    c: &mut Coster,
    expr: &Expr,
    function: &str,
    overload: &str,
    target: Option<&Expr>,
    args: &[Expr],
    costs: &[CostEstimate],
) -> CallEstimate {
    let sum = costs.iter().fold(CostEstimate::default(), |sum, cost| sum.plus(*cost));
    let call = Call { function, overload, target, args };
    if let Some(found) = call.kubernetes(c).or_else(|| call.lists(c)).or_else(|| call.standard(c, expr)) {
        return CallEstimate { cost: found.cost.plus(sum), size: found.size };
    }
    match (overload, costs, args) {
        // The second may never be looked at.
        ("logical_or" | "logical_and", [a, b], _) => {
            CallEstimate { cost: CostEstimate { min: a.min, max: a.plus(*b).max }, size: None }
        }
        ("conditional", [condition, yes, no], [_, a, b]) => {
            let size = c.size_or_unknown(a).union(c.size_or_unknown(b));
            c.join_entries(expr, a, b);
            CallEstimate { cost: condition.plus(yes.union(*no)), size: Some(size) }
        }
        _ => CallEstimate { cost: CostEstimate::fixed(1).plus(sum), size: None },
    }
}

struct Call<'e> {
    function: &'e str,
    overload: &'e str,
    target: Option<&'e Expr>,
    args: &'e [Expr],
}

impl Call<'_> {
    fn arg(&self, c: &mut Coster, i: usize) -> Size {
        self.args.get(i).map_or(Size::UNKNOWN, |a| c.size_or_unknown(a))
    }

    fn target(&self, c: &mut Coster) -> Option<Size> {
        self.target.map(|t| c.size_or_unknown(t))
    }

    fn kubernetes(&self, c: &mut Coster) -> Option<CallEstimate> {
        let one = CostEstimate::fixed(1);
        match self.function {
            "check" => only(CostEstimate::fixed(CHECK)),
            "serviceAccount"
            | "path"
            | "group"
            | "resource"
            | "subresource"
            | "namespace"
            | "name"
            | "allowed"
            | "reason"
            | "error"
            | "errored"
            | "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => only(one),
            "fieldSelector" | "labelSelector" => only(selector(self.arg(c, 0))),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => self.over_list(c),
            "url" | "jsonpatch.escapeKey" => {
                let size = self.arg(c, 0);
                sized(size.by(STRING_FACTOR), size)
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.target(c)?;
                sized(size.by(STRING_FACTOR), size)
            }
            "replace" => self.replace(c),
            "split" => {
                let size = self.target(c)?;
                let max = match self.args.get(1).map(|a| &a.kind) {
                    Some(Kind::Literal(Literal::Int(n))) => *n as u64,
                    _ => size.max,
                };
                sized(size.by(2.0 * STRING_FACTOR), Size { min: 0, max })
            }
            "join" => self.join(c),
            "find" | "findAll" => {
                let size = self.target(c)?;
                let regex = self.arg(c, 0).by(REGEX_FACTOR);
                let cost = size.plus(Size::fixed(1)).by(STRING_FACTOR).times(regex);
                sized(cost, Size { min: 0, max: size.max })
            }
            "ip" if self.overload == "cidr_ip" => only(one),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                only(self.arg(c, 0).by(STRING_FACTOR))
            }
            "ip.isCanonical" => only(self.arg(c, 0).by(2.0 * STRING_FACTOR)),
            "containsIP" | "containsCIDR" => {
                let address = Size { min: 4, max: 16 };
                let mut cost = address.plus(address).by(STRING_FACTOR);
                if self.function == "containsCIDR" {
                    cost = cost.plus(address.by(STRING_FACTOR)).plus(one);
                }
                if matches!(self.overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                    cost = cost.plus(self.arg(c, 0).by(STRING_FACTOR));
                }
                only(cost)
            }
            "validate" => only(self.arg(c, 0).by(STRING_FACTOR).by(FORMAT_REGEX * REGEX_FACTOR)),
            "_==_" => self.equality(c),
            _ => None,
        }
    }

    /// Equality of Kubernetes' own types.
    fn equality(&self, c: &mut Coster) -> Option<CallEstimate> {
        let [a, b] = self.args else { return None };
        if c.ty(a) != c.ty(b) {
            return None;
        }
        match c.ty(a) {
            Type::Opaque(_) => only(CostEstimate::fixed(1)),
            Type::Object(name) => match &**name {
                "kubernetes.NamedFormat" => only(CostEstimate { min: 1, max: FORMAT_NAME }.by(STRING_FACTOR)),
                "kubernetes.URL" => {
                    let max = c.size(b).map_or(1, |s| s.max);
                    only(CostEstimate { min: 1, max }.by(STRING_FACTOR))
                }
                name if name.starts_with("kubernetes.") => only(CostEstimate::fixed(1)),
                _ => None,
            },
            _ => None,
        }
    }

    /// A walk over a list, the elements of which may be texts; or over a text.
    fn over_list(&self, c: &mut Coster) -> Option<CallEstimate> {
        let target = self.target?;
        let size = c.size_or_unknown(target);
        let Type::List(of) = c.ty(target).clone() else { return only(size.by(STRING_FACTOR)) };
        let mut each = CostEstimate::fixed(1);
        if matches!(*of, Type::String | Type::Bytes) {
            each = each.plus(self.item_size(c, target).by(STRING_FACTOR));
        }
        only(size.by_cost(each))
    }

    fn item_size(&self, c: &mut Coster, list: &Expr) -> Size {
        if c.path(list).is_empty() {
            return Size::UNKNOWN;
        }
        c.declared(&c.extended(list, "@items")).unwrap_or(Size::UNKNOWN)
    }

    fn replace(&self, c: &mut Coster) -> Option<CallEstimate> {
        let size = self.target(c)?;
        let (old, new) = (self.arg(c, 0), self.arg(c, 1));
        let (mut count, mut kept) = (Size::fixed(0), Size::fixed(0));
        if old.min == 0 {
            // An empty text is found around every character.
            count.max = size.max.saturating_add(1);
            kept.max = size.max;
        } else if new.max <= old.min {
            kept.max = size.max;
        } else {
            count.max = (size.max as f64 / old.min as f64).ceil() as u64;
        }
        if old.max == 0 {
            count.min = size.min.saturating_add(1);
            kept.min = size.min;
        } else if old.max <= new.min {
            kept.min = size.min;
        } else {
            count.min = (size.min as f64 / old.max as f64).ceil() as u64;
        }
        sized(size.by(2.0 * STRING_FACTOR), count.times(new).plus(kept))
    }

    fn join(&self, c: &mut Coster) -> Option<CallEstimate> {
        let target = self.target?;
        let count = c.size_or_unknown(target);
        let mut size = match c.ty(target) {
            Type::List(_) => count.times(self.item_size(c, target)),
            _ => Size::fixed(0),
        };
        if !self.args.is_empty() {
            let separators = Size { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
            size = size.plus(self.arg(c, 0).times(separators));
        }
        sized(size.by(STRING_FACTOR), size)
    }

    /// The extension libraries of lists and sets.
    fn lists(&self, c: &mut Coster) -> Option<CallEstimate> {
        let number = |i: usize, default: u64| match self.args.get(i).map(|a| &a.kind) {
            Some(Kind::Literal(Literal::Int(n))) => u64::try_from(*n).unwrap_or(0),
            _ => default,
        };
        let allocating = |factor: f64, size: Size| sized(size.by(factor).plus(CostEstimate::fixed(1 + LIST)), size);
        match self.function {
            "slice" => {
                let size = self.target(c)?;
                allocating(1.0, Size::fixed(number(1, size.max).wrapping_sub(number(0, 0))))
            }
            "lists.range" => allocating(1.0, Size::fixed(number(0, u64::MAX))),
            "reverse" => allocating(1.0, self.target(c)?),
            "flatten" => {
                let depth = if self.args.is_empty() { 1 } else { number(0, u64::MAX) };
                allocating(depth as f64, self.target(c)?)
            }
            "distinct" => {
                let size = self.target(c)?;
                allocating(2.0, size.times(size))
            }
            "sort" | "@sortByAssociatedKeys" => {
                let size = if self.function == "sort" { self.target(c)? } else { self.arg(c, 0) };
                let text = self.overload.starts_with("list_string") || self.overload.starts_with("list_bytes");
                allocating(if text { 2.0 + STRING_FACTOR } else { 2.0 }, size.times(size))
            }
            "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                let factor = if self.function == "sets.equivalent" { 2.0 } else { 1.0 };
                let both = self.arg(c, 0).times(self.arg(c, 1));
                only(both.by(factor).plus(CostEstimate::fixed(1)))
            }
            _ => None,
        }
    }

    fn standard(&self, c: &mut Coster, expr: &Expr) -> Option<CallEstimate> {
        match self.overload {
            "string_format" => only(self.target(c)?.by(STRING_FACTOR)),
            "string_to_bytes" => {
                let size = self.arg(c, 0);
                sized(size.by(STRING_FACTOR), Size { min: size.min, max: size.max.wrapping_mul(4) })
            }
            "bytes_to_string" => {
                let size = self.arg(c, 0);
                sized(size.by(STRING_FACTOR), Size { min: size.min / 4, max: size.max })
            }
            "strings_quote" => {
                let size = self.arg(c, 0);
                let max = size.max.wrapping_mul(2).wrapping_add(2);
                sized(size.by(STRING_FACTOR), Size { min: size.min.saturating_add(2), max })
            }
            "starts_with_string" | "ends_with_string" => only(self.arg(c, 0).by(STRING_FACTOR)),
            "in_list" => only(self.arg(c, 1).by(1.0)),
            "matches_string" => {
                let text = self.target(c)?.plus(Size::fixed(1)).by(STRING_FACTOR);
                only(text.times(self.arg(c, 0).by(REGEX_FACTOR)))
            }
            "contains_string" => {
                let text = self.target(c)?.by(STRING_FACTOR);
                only(text.times(self.arg(c, 0).by(STRING_FACTOR)))
            }
            "add_string" | "add_bytes" | "add_list" => {
                let [a, b] = self.args else { return None };
                let size = c.size_or_unknown(a).plus(c.size_or_unknown(b));
                c.join_entries(expr, a, b);
                let cost = if self.overload == "add_list" { CostEstimate::fixed(1) } else { size.by(STRING_FACTOR) };
                sized(cost, size)
            }
            "equals"
            | "not_equals"
            | "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes" => {
                let max = self.arg(c, 0).max.min(self.arg(c, 1).max);
                only(CostEstimate { min: u64::from(max > 0), max }.by(STRING_FACTOR))
            }
            _ => None,
        }
    }
}
