//! The descriptors of the grader, shared out among the checks that run at
//! the same time.
//!
//! A crowd of 10,000 clients takes 10,000 descriptors of one process. The
//! kernel's limit (`ulimit -n`) is raised as far as it goes, and a check
//! waits until what it needs is free; a crowd that can never fit is skipped.

use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::check::{Result, Stop};

/// Left to the grader's own pipes, files and children's plumbing; a quarter
/// where there are few.
static RESERVE: LazyLock<u64> = LazyLock::new(|| (limit() / 4).min(300));

/// What macOS grants to a process at most (OPEN_MAX), though it calls the hard
/// limit infinite.
const OPEN_MAX: u64 = 10_240;

struct Budget {
    total: u64,
    free: Mutex<u64>,
    returned: Condvar,
}

static BUDGET: LazyLock<Budget> = LazyLock::new(|| {
    let total = limit() - *RESERVE;
    Budget {
        total,
        free: Mutex::new(total),
        returned: Condvar::new(),
    }
});

/// How many descriptors one process may have here: the soft limit, once
/// raised to the hard one.
pub fn limit() -> u64 {
    static LIMIT: LazyLock<u64> = LazyLock::new(|| {
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return 256;
        };
        let raised = [hard, OPEN_MAX.min(hard)]
            .into_iter()
            .find(|&limit| setrlimit(Resource::RLIMIT_NOFILE, limit, hard).is_ok());
        raised.unwrap_or(soft)
    });
    *LIMIT
}

/// Descriptors set aside for one check; they are free again on drop.
#[derive(Debug)]
pub struct Held(u64);

/// Waits until `descriptors` are free, and takes them.
///
/// # Errors
/// A reason to skip, naming the limit, when there can never be as many.
pub fn hold(descriptors: u64) -> Result<Held> {
    let budget = &*BUDGET;
    if descriptors > budget.total {
        return Err(too_few(descriptors.saturating_add(*RESERVE)));
    }
    let free = budget.free.lock().unwrap_or_else(PoisonError::into_inner);
    let mut free = budget
        .returned
        .wait_while(free, |free| *free < descriptors)
        .unwrap_or_else(PoisonError::into_inner);
    *free -= descriptors;
    Ok(Held(descriptors))
}

/// The reason to skip what needs more descriptors than a process may have.
pub fn too_few(needed: u64) -> Stop {
    let limit = limit();
    Stop::skipped(format!(
        "needs {needed} descriptors, and the hard limit here is {limit} (ulimit -n)"
    ))
}

impl Drop for Held {
    fn drop(&mut self) {
        *BUDGET.free.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        BUDGET.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_fit_is_skipped_with_the_limit_named() {
        let Err(Stop::Skipped(reason)) = hold(u64::MAX) else {
            panic!("held more than there is");
        };
        assert!(reason.contains("ulimit -n"), "{reason}");
    }

    #[test]
    fn a_holder_waits_for_another_to_let_go() {
        let all = hold(BUDGET.total).expect("the whole budget");
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let held = hold(1);
            sender.send(()).expect("the test listens");
            held.map(drop).is_ok()
        });
        assert!(receiver.try_recv().is_err(), "the budget was overdrawn");
        drop(all);
        receiver.recv().expect("let in");
        assert!(waiting.join().expect("no panic"));
    }
}
