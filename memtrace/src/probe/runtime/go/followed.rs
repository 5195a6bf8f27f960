//! What has become of the look at a process as a Go program.
//!
//! In: the process, looked at as often as it may have changed. Out: probes in
//! place, its description and troubles for people, and each of its types' names
//! once.

use std::collections::HashSet;

use super::{GoError, TypeNames, find};
use crate::probe::{attach::Links, load::Kernel};

/// Types of a process whose names are told: 8 bytes each, and as many as its
/// program has, of which the largest have some tens of thousands.
const TYPES_TOLD_MAX: usize = 65_536;

/// A process, as far as it is a Go program.
#[derive(Debug, Default)]
pub struct Followed {
    state: State,
    trouble: Vec<String>,
}

#[derive(Debug, Default)]
enum State {
    /// It has not been looked at, or was not ready to be.
    #[default]
    Unsettled,
    /// It is none, or one that cannot be read.
    Unread,
    /// It is probed.
    Probed {
        described: String,
        types: TypeNames,
        told: HashSet<u64>,
    },
}

impl Followed {
    /// Looks at the process unless that is settled, and probes it. Returns
    /// whether anything about it has changed.
    pub fn probe(&mut self, pid: u32, kernel: &mut Kernel, links: &mut Links) -> bool {
        if !matches!(self.state, State::Unsettled) {
            return false;
        }
        let trouble_before = std::mem::take(&mut self.trouble);
        self.state = match Self::attach(pid, kernel, links) {
            Ok(None) => State::Unread,
            Ok(Some((described, types, trouble))) => {
                self.trouble = trouble;
                State::Probed {
                    described,
                    types,
                    told: HashSet::new(),
                }
            }
            Err(error) => {
                self.trouble = vec![format!("Go's heap and goroutines are not seen: {error}")];
                match error {
                    // It soon will be.
                    GoError::NotRunning => State::Unsettled,
                    GoError::Version(_)
                    | GoError::Read(_)
                    | GoError::Binary(_)
                    | GoError::Function(_)
                    | GoError::Refused(_) => State::Unread,
                }
            }
        };
        matches!(self.state, State::Probed { .. }) || self.trouble != trouble_before
    }

    fn attach(
        pid: u32,
        kernel: &mut Kernel,
        links: &mut Links,
    ) -> Result<Option<(String, TypeNames, Vec<String>)>, GoError> {
        let Some(go) = find(pid)? else {
            return Ok(None);
        };
        // What is probed is stated only once this is known.
        kernel
            .set_go(pid, go.target)
            .map_err(|error| GoError::Refused(error.to_string()))?;
        links
            .attach_go(kernel, pid, &go)
            .map_err(|error| GoError::Refused(error.to_string()))?;
        let described = go.describe();
        Ok(Some((described, go.types, go.trouble)))
    }

    /// Its heap and program, for people, if it is probed.
    pub fn described(&self) -> Option<&str> {
        match &self.state {
            State::Probed { described, .. } => Some(described),
            State::Unsettled | State::Unread => None,
        }
    }

    /// What of it is not seen, in words.
    pub fn trouble(&self) -> &[String] {
        &self.trouble
    }

    /// The name of the type that is described at this address, if it has one and
    /// was not asked for before.
    pub fn new_type(&mut self, address: u64) -> Option<String> {
        let State::Probed { types, told, .. } = &mut self.state else {
            return None;
        };
        let new = address != 0 && told.len() < TYPES_TOLD_MAX && told.insert(address);
        new.then(|| types.name(address)).flatten()
    }
}
