//! Kubernetes' own types and what can be done with them.

use super::authorization::{Check, Decision, ResourceCheck, Subject};
use super::format::Format;
use super::net::{Cidr, Ip};
use super::semver::Semver;
use super::url::Url;
use super::{net, semver, url};
use crate::eval::{Context, EvalError, Function, Outcome};
use crate::types::Type;
use crate::val::Val;
use canopus_api::Quantity;
use std::cmp::Ordering;

/// A value of one of Kubernetes' own types.
#[derive(Clone, Debug)]
pub enum Opaque<'a> {
    Url(Url),
    Ip(Ip),
    Cidr(Cidr),
    Quantity(Quantity),
    Semver(Semver),
    Format(&'static Format),
    Authorizer(Subject<'a>),
    PathCheck(Subject<'a>, String),
    GroupCheck(Subject<'a>, String),
    ResourceCheck(Subject<'a>, ResourceCheck),
    Decision(Decision),
}

impl Opaque<'_> {
    pub(crate) fn ty(&self) -> Type {
        match self {
            Opaque::Url(_) => Type::object("kubernetes.URL"),
            Opaque::Ip(_) => Type::Opaque("net.IP".into()),
            Opaque::Cidr(_) => Type::Opaque("net.CIDR".into()),
            Opaque::Quantity(_) => Type::object("kubernetes.Quantity"),
            Opaque::Semver(_) => Type::object("kubernetes.Semver"),
            Opaque::Format(_) => Type::object("kubernetes.NamedFormat"),
            Opaque::Authorizer(_) => Type::object("kubernetes.authorization.Authorizer"),
            Opaque::PathCheck(..) => Type::object("kubernetes.authorization.PathCheck"),
            Opaque::GroupCheck(..) => Type::object("kubernetes.authorization.GroupCheck"),
            Opaque::ResourceCheck(..) => Type::object("kubernetes.authorization.ResourceCheck"),
            Opaque::Decision(_) => Type::object("kubernetes.authorization.Decision"),
        }
    }

    /// What `string(x)` makes of it.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Opaque::Ip(ip) => Some(ip.0.to_string()),
            Opaque::Cidr(cidr) => Some(format!("{}/{}", cidr.address, cidr.bits)),
            _ => None,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Opaque::Ip(ip) => {
                if ip.0.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            Opaque::Cidr(cidr) => u64::from(cidr.bits).div_ceil(8),
            _ => 1,
        }
    }

    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Opaque::Url(a), Opaque::Url(b)) => a.text == b.text,
            (Opaque::Ip(a), Opaque::Ip(b)) => a.0 == b.0,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.compare(b).is_eq(),
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            _ => false,
        }
    }
}

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "url" => |_, a| text(a).and_then(url::parse),
        "isURL" => |_, a| text(a).map(|s| Val::Bool(url::parse(s).is_ok())),
        "getScheme" => |_, a| of_url(a, |u| u.scheme.clone()),
        "getHost" => |_, a| of_url(a, |u| u.host.clone()),
        "getHostname" => |_, a| of_url(a, |u| u.hostname().to_string()),
        "getPort" => |_, a| of_url(a, |u| u.port().to_string()),
        "getEscapedPath" => |_, a| of_url(a, |u| u.path.clone()),
        "getQuery" => query,
        "ip" => net::ip,
        "isIP" => |_, a| text(a).map(|s| Val::Bool(net::parse_ip(s).is_ok())),
        "ip.isCanonical" => |_, a| text(a).and_then(net::is_canonical),
        "family" => |_, a| of_ip(a, |ip| Val::Int(if ip.0.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |_, a| of_ip(a, |ip| Val::Bool(ip.0.is_unspecified())),
        "isLoopback" => |_, a| of_ip(a, |ip| Val::Bool(ip.0.is_loopback())),
        "isLinkLocalMulticast" => |_, a| of_ip(a, |ip| Val::Bool(ip.is_link_local_multicast())),
        "isLinkLocalUnicast" => |_, a| of_ip(a, |ip| Val::Bool(ip.is_link_local_unicast())),
        "isGlobalUnicast" => |_, a| of_ip(a, |ip| Val::Bool(ip.is_global_unicast())),
        "cidr" => |_, a| text(a).and_then(net::cidr),
        "isCIDR" => |_, a| text(a).map(|s| Val::Bool(net::parse_cidr(s).is_ok())),
        "containsIP" => net::contains_ip,
        "containsCIDR" => net::contains_cidr,
        "prefixLength" => |_, a| of_cidr(a, |c| Val::Int(i64::from(c.bits))),
        "masked" => |_, a| of_cidr(a, |c| Val::opaque(Opaque::Cidr(c.masked()))),
        "quantity" => quantity,
        "isQuantity" => |_, a| text(a).map(|s| Val::Bool(Quantity::parse(s).is_ok())),
        "sign" => |_, a| of_quantity(a, |q| Ok(Val::Int(sign(q)))),
        "asApproximateFloat" => |_, a| of_quantity(a, |q| Ok(Val::Double(approximate(q)))),
        "asInteger" => |_, a| of_quantity(a, as_integer),
        "isInteger" => |_, a| of_quantity(a, |q| Ok(Val::Bool(as_integer(q).is_ok()))),
        "add" => |_, a| sum(a, false),
        "sub" => |_, a| sum(a, true),
        "isGreaterThan" => |_, a| compared(a).map(|o| Val::Bool(o.is_gt())),
        "isLessThan" => |_, a| compared(a).map(|o| Val::Bool(o.is_lt())),
        "compareTo" => |_, a| compared(a).map(|o| Val::Int(o as i64)),
        "semver" => semver::parse_function,
        "isSemver" => semver::is_semver,
        "major" => |_, a| of_semver(a, |v| v.major),
        "minor" => |_, a| of_semver(a, |v| v.minor),
        "patch" => |_, a| of_semver(a, |v| v.patch),
        _ => return None,
    })
}

fn text<'v>(args: &'v [Val]) -> Result<&'v str, EvalError> {
    match args {
        [Val::Str(s)] => Ok(s),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn one<'v, 'a>(args: &'v [Val<'a>]) -> Result<&'v Opaque<'a>, EvalError> {
    match args {
        [Val::Opaque(o)] => Ok(o),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_url<'a>(args: &[Val<'a>], part: fn(&Url) -> String) -> Outcome<'a> {
    match one(args)? {
        Opaque::Url(url) => Ok(part(url).into()),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn query<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match one(args)? {
        Opaque::Url(url) => url.query(),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_ip<'a>(args: &[Val<'a>], part: fn(&Ip) -> Val<'a>) -> Outcome<'a> {
    match one(args)? {
        Opaque::Ip(ip) => Ok(part(ip)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_cidr<'a>(args: &[Val<'a>], part: fn(&Cidr) -> Val<'a>) -> Outcome<'a> {
    match one(args)? {
        Opaque::Cidr(cidr) => Ok(part(cidr)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_semver<'a>(args: &[Val<'a>], part: fn(&Semver) -> u64) -> Outcome<'a> {
    match one(args)? {
        Opaque::Semver(v) => Ok(Val::Int(i64::try_from(part(v)).unwrap_or(i64::MAX))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_quantity<'a>(args: &[Val<'a>], part: fn(&Quantity) -> Outcome<'a>) -> Outcome<'a> {
    match one(args)? {
        Opaque::Quantity(q) => part(q),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn quantity<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match Quantity::parse(text(args)?) {
        Ok(q) => Ok(Val::opaque(Opaque::Quantity(q))),
        Err(why) => Err(EvalError::new(why.to_string())),
    }
}

fn sign(q: &Quantity) -> i64 {
    match (q.is_zero(), q.is_negative()) {
        (true, _) => 0,
        (_, true) => -1,
        _ => 1,
    }
}

fn as_integer<'a>(q: &Quantity) -> Outcome<'a> {
    let value = q.value();
    if q.is_integer() && Quantity::from_int(value) == *q {
        return Ok(Val::Int(value));
    }
    Err(EvalError::new("cannot convert value to integer"))
}

/// The number that the canonical text says.
fn approximate(q: &Quantity) -> f64 {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1048576.0),
        ("Gi", 1073741824.0),
        ("Ti", 1099511627776.0),
        ("Pi", 1125899906842624.0),
        ("Ei", 1152921504606846976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = q.to_string();
    for (suffix, factor) in SUFFIXES {
        if let Some(number) = text.strip_suffix(suffix)
            && let Ok(number) = number.parse::<f64>()
        {
            return number * factor;
        }
    }
    text.parse().unwrap_or(0.0)
}

fn sum<'a>(args: &[Val<'a>], negative: bool) -> Outcome<'a> {
    let [Val::Opaque(left), right] = args else { return Err(EvalError::no_such_overload()) };
    let Opaque::Quantity(left) = &**left else { return Err(EvalError::no_such_overload()) };
    let right = match right {
        Val::Int(i) => Quantity::from_int(*i),
        Val::Opaque(o) => match &**o {
            Opaque::Quantity(q) => *q,
            _ => return Err(EvalError::no_such_overload()),
        },
        _ => return Err(EvalError::no_such_overload()),
    };
    let result = if negative { left.minus(right) } else { left.plus(right) };
    Ok(Val::opaque(Opaque::Quantity(result)))
}

fn compared(args: &[Val]) -> Result<Ordering, EvalError> {
    let [Val::Opaque(a), Val::Opaque(b)] = args else { return Err(EvalError::no_such_overload()) };
    match (&**a, &**b) {
        (Opaque::Quantity(a), Opaque::Quantity(b)) => Ok(a.cmp(b)),
        (Opaque::Semver(a), Opaque::Semver(b)) => Ok(a.compare(b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

impl<'a> Val<'a> {
    /// An authorizer, as the variable `authorizer` holds it. `check` asks on behalf of the request's user.
    pub fn authorizer(check: &'a dyn Check) -> Val<'a> {
        Val::opaque(Opaque::Authorizer(Subject { check, service_account: None }))
    }

    /// A check of the requested resource, as the variable `authorizer.requestResource` holds it.
    pub fn resource_check(check: &'a dyn Check, group: &str, resource: ResourceCheck) -> Val<'a> {
        let resource = ResourceCheck { group: group.into(), ..resource };
        Val::opaque(Opaque::ResourceCheck(Subject { check, service_account: None }, resource))
    }
}
