//! `authorizer.group('apps').resource('deployments').check('get').allowed()`.

use super::kubernetes::Opaque;
use crate::eval::{Context, EvalError, Function, Outcome};
use crate::val::Val;
use canopus_api::names;
use std::fmt;

/// Answers whether somebody may do something.
pub trait Check: Send + Sync {
    /// For the user of the request, or for the service account (namespace, name) if one is given.
    fn check(&self, service_account: Option<(&str, &str)>, asked: &Asked) -> Decision;
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<'r> {
    Path { path: &'r str, verb: &'r str },
    Resource { resource: &'r ResourceCheck, verb: &'r str },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceCheck {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// Whom a check is about, and who answers.
#[derive(Clone)]
pub struct Subject<'a> {
    pub(crate) check: &'a dyn Check,
    pub(crate) service_account: Option<(String, String)>,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({:?})", self.service_account)
    }
}

impl Subject<'_> {
    fn ask(&self, asked: &Asked) -> Decision {
        let account = self.service_account.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        self.check.check(account, asked)
    }
}

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "path" => path,
        "group" => group,
        "serviceAccount" => service_account,
        "resource" => resource,
        "subresource" => |_, a| changed(a, |r, v| r.subresource = v),
        "namespace" => |_, a| changed(a, |r, v| r.namespace = v),
        "name" => |_, a| changed(a, |r, v| r.name = v),
        "fieldSelector" => |_, a| changed(a, |r, v| r.field_selector = v),
        "labelSelector" => |_, a| changed(a, |r, v| r.label_selector = v),
        "check" => check,
        "allowed" => |_, a| decision(a).map(|d| Val::Bool(d.allowed)),
        "reason" => |_, a| decision(a).map(|d| d.reason.clone().into()),
        "errored" => |_, a| decision(a).map(|d| Val::Bool(d.error.is_some())),
        "error" => |_, a| decision(a).map(|d| d.error.clone().unwrap_or_default().into()),
        _ => return None,
    })
}

fn with_text<'v, 'a>(args: &'v [Val<'a>]) -> Result<(&'v Opaque<'a>, &'v str), EvalError> {
    match args {
        [Val::Opaque(o), Val::Str(s)] => Ok((o, s)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn path<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match with_text(args)? {
        (Opaque::Authorizer(_), path) if path.trim().is_empty() => Err(EvalError::new("path must not be empty")),
        (Opaque::Authorizer(subject), path) => Ok(Val::opaque(Opaque::PathCheck(subject.clone(), path.into()))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn group<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match with_text(args)? {
        (Opaque::Authorizer(subject), group) => Ok(Val::opaque(Opaque::GroupCheck(subject.clone(), group.into()))),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn service_account<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::Opaque(o), Val::Str(namespace), Val::Str(name)] = args else { return Err(EvalError::no_such_overload()) };
    let Opaque::Authorizer(subject) = &**o else { return Err(EvalError::no_such_overload()) };
    if !names::dns1123_subdomain(name).is_empty() {
        return Err(EvalError::new("Invalid service account name"));
    }
    if !names::dns1123_label(namespace).is_empty() {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let account = Some((namespace.to_string(), name.to_string()));
    Ok(Val::opaque(Opaque::Authorizer(Subject { check: subject.check, service_account: account })))
}

fn resource<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    match with_text(args)? {
        (Opaque::GroupCheck(..), resource) if resource.trim().is_empty() => {
            Err(EvalError::new("resource must not be empty"))
        }
        (Opaque::GroupCheck(subject, group), resource) => {
            let check = ResourceCheck { group: group.clone(), resource: resource.into(), ..ResourceCheck::default() };
            Ok(Val::opaque(Opaque::ResourceCheck(subject.clone(), check)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn changed<'a>(args: &[Val<'a>], change: fn(&mut ResourceCheck, String)) -> Outcome<'a> {
    match with_text(args)? {
        (Opaque::ResourceCheck(subject, check), value) => {
            let mut check = check.clone();
            change(&mut check, value.into());
            Ok(Val::opaque(Opaque::ResourceCheck(subject.clone(), check)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn check<'a>(_: &Context<'a, '_>, args: &[Val<'a>]) -> Outcome<'a> {
    let decision = match with_text(args)? {
        (Opaque::PathCheck(subject, path), verb) => subject.ask(&Asked::Path { path, verb }),
        (Opaque::ResourceCheck(subject, resource), verb) => subject.ask(&Asked::Resource { resource, verb }),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Val::opaque(Opaque::Decision(decision)))
}

fn decision<'v>(args: &'v [Val]) -> Result<&'v Decision, EvalError> {
    match args {
        [Val::Opaque(o)] => match &**o {
            Opaque::Decision(decision) => Ok(decision),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}
