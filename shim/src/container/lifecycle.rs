//! What may follow what in the life of a container and of its exec'd processes.

use std::fmt;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its init waits before the execve of its program.
    Created,
    /// The program runs.
    Running,
    /// It is being frozen.
    Pausing,
    /// It is frozen.
    Paused,
    /// Its init has ended, and every exec'd process before it.
    Stopped,
}

/// What a client asks of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Start,
    Pause,
    Resume,
    Exec,
    Update,
    Delete,
}

/// Where an exec'd process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Known, not started.
    Created,
    /// It could not be started. To clients it stays created.
    Failed,
    /// It runs.
    Running,
    /// It has ended.
    Stopped,
}

impl State {
    /// Whether `operation` makes sense now.
    pub fn allows(self, operation: Operation) -> bool {
        use Operation::*;
        use State::*;
        match (operation, self) {
            (Start, Created) | (Pause, Running) | (Resume, Paused) | (Delete, Created | Stopped) => true,
            // A created container's processes already exist, and so do their cgroups and namespaces.
            (Exec, Created | Running) => true,
            (Update, Created | Running | Pausing | Paused) => true,
            (Start | Pause | Resume | Exec | Update | Delete, _) => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

impl fmt::Display for ExecState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Failed => "failed to start",
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Exec => "exec in",
            Self::Update => "update",
            Self::Delete => "delete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_allowed_in_exactly_the_states_in_which_it_makes_sense() {
        use State::*;
        let all = [Created, Running, Pausing, Paused, Stopped];
        let allowed = |operation| {
            all.into_iter()
                .filter(|state| state.allows(operation))
                .collect::<Vec<_>>()
        };
        assert_eq!(allowed(Operation::Start), [Created]);
        assert_eq!(allowed(Operation::Pause), [Running]);
        assert_eq!(allowed(Operation::Resume), [Paused]);
        assert_eq!(allowed(Operation::Exec), [Created, Running]);
        assert_eq!(allowed(Operation::Update), [Created, Running, Pausing, Paused]);
        assert_eq!(allowed(Operation::Delete), [Created, Stopped]);
    }
}
