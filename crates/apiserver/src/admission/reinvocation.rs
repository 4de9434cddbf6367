//! A second round of mutating admission: when a webhook or policy has changed the object, everybody who came before it
//! gets another look, once (upstream `admission.ReinvocationContext`).

use canopus_api::Value;

/// Of one request.
#[derive(Default)]
pub struct Reinvocation {
    /// 0, then 1.
    pub round: u8,
    wanted: bool,
    /// By plugin; empty, and free, for a request that nobody changes.
    states: Vec<(&'static str, State)>,
}

/// What one plugin's webhooks or policies have done so far.
#[derive(Default)]
struct State {
    /// Those called that want to see later changes, too.
    invoked: Vec<String>,
    /// Those to be called again.
    due: Vec<String>,
    output: Option<Value>,
}

impl Reinvocation {
    /// Whether there is a second round; it begins with this.
    pub fn again(&mut self) -> bool {
        let again = self.wanted && self.round == 0;
        self.round += u8::from(again);
        again
    }

    fn state(&mut self, plugin: &'static str) -> &mut State {
        let at = self.states.iter().position(|(name, _)| *name == plugin).unwrap_or_else(|| {
            self.states.push((plugin, State::default()));
            self.states.len() - 1
        });
        &mut self.states[at].1
    }

    /// The plugin's turn comes again: if others changed the object since, all it called are due.
    pub fn begin(&mut self, plugin: &'static str, object: &Value) {
        let state = self.state(plugin);
        if state.output.as_ref().is_some_and(|output| output != object) {
            state.due.append(&mut state.invoked);
        }
    }

    /// Whether this one is to be called again.
    pub fn due(&mut self, plugin: &'static str, id: &str) -> bool {
        self.state(plugin).due.iter().any(|due| due == id)
    }

    /// One of the plugin's changed the object: those before it are due again.
    pub fn changed(&mut self, plugin: &'static str) {
        self.wanted = true;
        let state = self.state(plugin);
        state.due.append(&mut state.invoked);
    }

    /// This one was called and wants to be again if the object changes.
    pub fn invoked(&mut self, plugin: &'static str, id: &str) {
        self.state(plugin).invoked.push(id.into());
    }

    /// The plugin is through.
    pub fn end(&mut self, plugin: &'static str, object: &Value) {
        // Nobody looks at it unless there is a second round.
        if self.wanted && self.round == 0 {
            self.state(plugin).output = Some(object.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn who_came_before_a_change_is_due_again() {
        let mut r = Reinvocation::default();
        assert!(!r.again());
        r.invoked("p", "first");
        r.changed("p");
        r.invoked("p", "second");
        r.end("p", &value!({"a": 1}));
        assert!(r.again());
        r.begin("p", &value!({"a": 1}));
        assert!(r.due("p", "first") && !r.due("p", "second"));
        r.changed("p");
        assert!(!r.again(), "there are two rounds at most");
    }

    #[test]
    fn a_change_by_others_counts_too() {
        let mut r = Reinvocation::default();
        r.invoked("p", "one");
        r.changed("other");
        r.end("p", &value!({"a": 1}));
        assert!(r.again());
        r.begin("p", &value!({"a": 2}));
        assert!(r.due("p", "one"));
    }
}
