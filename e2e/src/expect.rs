//! What a refusal must look like.

use anyhow::{Error, Result, bail};
use containerd_client::tonic::{Code, Status};

/// A call that was refused: with which code, in which words.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: Code,
    pub text: String,
}

impl Refusal {
    pub fn with_code(self, code: Code) -> Result<Self> {
        if self.code != code {
            bail!("refused with {:?} instead of {code:?}: {}", self.code, self.text);
        }
        Ok(self)
    }

    /// Its text names something.
    pub fn saying(self, words: &str) -> Result<Self> {
        if !self.text.contains(words) {
            bail!("refused without the words {words:?}: {:?}: {}", self.code, self.text);
        }
        Ok(self)
    }
}

/// The refusal that a call must end with.
pub fn refused<T, E: Into<Error>>(result: Result<T, E>) -> Result<Refusal> {
    let error = match result {
        Ok(_) => bail!("it was accepted, and should have been refused"),
        Err(error) => error.into(),
    };
    match error.downcast_ref::<Status>() {
        Some(status) => Ok(Refusal {
            code: status.code(),
            text: status.message().to_owned(),
        }),
        None => Err(error),
    }
}

/// Two values that must be the same; the message shows both.
#[macro_export]
macro_rules! same {
    ($found:expr, $wanted:expr) => {
        $crate::same!($found, $wanted, "{}", stringify!($found))
    };
    ($found:expr, $wanted:expr, $($about:tt)+) => {
        // A `match`, so that temporaries of both expressions live until both are compared.
        match (&$found, &$wanted) {
            (found, wanted) => {
                anyhow::ensure!(found == wanted, "{}: found {found:?}, wanted {wanted:?}", format_args!($($about)+));
            }
        }
    };
}
