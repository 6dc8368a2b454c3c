//! A server with nothing to do does nothing: not one system call.

use std::time::Duration;

use crate::bytes::count;
use crate::catalog::{Clients, Traits};
use crate::check::{Case, Check, Deadline, Failure, ORDINARY, Result};
use crate::checks::crowd::gather;
use crate::proc::{self, Activity};
use crate::server::Server;

const CAUSE: &str = "the wait has a short timeout, or asks for writability while nothing \
                     waits to be written";

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "with no client the server sleeps",
        cause: CAUSE,
        section: "ch02-select/steps.md#idle",
        descriptors: ORDINARY,
        applies: Traits::is_server,
        run: |case| sleeps_with(case, 0),
    },
    Check {
        name: "with ten silent clients the server sleeps",
        cause: CAUSE,
        section: "ch02-select/steps.md#idle",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: |case| sleeps_with(case, 10),
    },
    Check {
        name: "with 1,000 silent clients the server sleeps",
        cause: CAUSE,
        section: "ch02-select/steps.md#idle",
        descriptors: ORDINARY + 1_000,
        applies: |traits| traits.serves(1_000),
        run: |case| sleeps_with(case, 1_000),
    },
];

/// A server must have come to rest this long after the last event.
const SETTLE: Duration = Duration::from_secs(5);

/// The window in which nothing may happen; longer than a timer of a second.
const WINDOW: Duration = Duration::from_millis(1200);

/// `size` clients are connected; where the server cannot serve as many at
/// once, the rest of them waits.
fn sleeps_with(case: &Case, size: usize) -> Result {
    proc::available()?;
    case.serve(|server| {
        let mut served = gather(case, server, case.at_once(size))?;
        let mut waiting = Vec::new();
        while served.len() + waiting.len() < size {
            waiting.push(case.stranger(server)?);
        }
        sleeps(server, size)?;
        // They are clients still, and not only silent but served.
        served
            .iter_mut()
            .try_for_each(|client| case.talk(client, "awake\n"))?;
        if case.traits().clients == Clients::One && !waiting.is_empty() {
            drop(served);
            case.talk(&mut waiting[0], "at last\n")?;
        }
        Ok(())
    })
}

pub(super) fn sleeps(server: &Server, clients: usize) -> Result {
    rests(
        server,
        format!("watching a server with {clients} silent clients"),
    )
}

/// Waits until a program has done all there is to do. False if it goes on.
pub(super) fn settles(server: &Server) -> bool {
    let rested = || {
        watch(server, Duration::from_millis(100))
            .is_none()
            .then_some(())
    };
    Deadline::after(SETTLE).until(rested).is_some()
}

fn watch(server: &Server, time: Duration) -> Activity {
    let before = server.snapshot();
    std::thread::sleep(time);
    server.snapshot().since(&before)
}

/// Watches a program to which nothing happens.
pub(super) fn rests(server: &Server, what: String) -> Result {
    let settled = settles(server);
    let activity = watch(server, WINDOW);
    if settled && activity.is_none() {
        return Ok(());
    }
    Failure::new(what)
        .expected("not one system call")
        .came(format!(
            "it woke {} times in {:.1} s and ran for {:.1} ms",
            count(activity.wakeups),
            WINDOW.as_secs_f32(),
            activity.cpu.as_secs_f64() * 1e3
        ))
        .stop()
}
