//! More than a server wants to hold: bytes that nobody reads, clients for
//! whom there is no descriptor.

use std::time::Duration;

use crate::bytes::{count, size};
use crate::catalog::{Model, Traits};
use crate::check::{Case, Check, Failure, ORDINARY, Result};
use crate::checks::crowd::gather;
use crate::checks::idle::rests;
use crate::client::{Client, STALL};
use crate::proc;
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a client that sends and never reads is held, and then gets every byte",
        cause: "the server reads on while its answers pile up in memory, or drops or \
                overwrites what it could not write",
        section: "ch02-select/back-pressure.md#back-pressure",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: flood,
    },
    Check {
        name: "out of descriptors, the server neither spins nor dies, and recovers",
        cause: "accept fails with EMFILE, the listener stays readable, and the loop tries \
                again at once",
        section: "ch02-select/limits.md#emfile",
        descriptors: ORDINARY + 64,
        applies: Traits::is_tcp_server,
        run: out_of_descriptors,
    },
    Check {
        name: "a server that is exactly full sleeps",
        cause: "accept fails with EMFILE though nobody waits: Linux takes the descriptor before \
                it looks into the queue, and the server tries again and again",
        section: "ch02-select/limits.md#emfile",
        descriptors: ORDINARY + 64,
        applies: |traits| {
            let one_process = matches!(traits.model, Model::Select | Model::Poll | Model::Reactor);
            traits.is_tcp_server() && one_process
        },
        run: exactly_full,
    },
];

/// A server that takes this much from a client who does not read has no limit.
const NO_LIMIT: u64 = 64 << 20;

/// How long a write must be stuck to be held.
const HELD: Duration = Duration::from_secs(1);

/// How much the server may grow for one client, whatever that does.
const GROWTH: u64 = 1 << 20;

fn flood(case: &Case) -> Result {
    case.serve(|server| {
        let mut other = match case.at_once(2) {
            2 => Some(case.client(server)?),
            _ => None,
        };
        let mut client = case.narrow_client(server)?;
        // Whatever is made once for a client, or for the first large read, is
        // there before the measurement.
        for client in other.iter_mut().chain([&mut client]) {
            client.exchange(crate::bytes::pattern(0, 64 << 10))?;
        }
        let before = server.resident();
        let pushed = client.push(NO_LIMIT, HELD)?;
        let grown = server.resident().saturating_sub(before);
        if !pushed.held || grown >= GROWTH {
            let held = if pushed.held {
                "held"
            } else {
                "still not held"
            };
            return Failure::new("sending without ever reading")
                .sent(format!("{}, then {held}", size(pushed.bytes)))
                .expected(format!("a server that grows by less than {}", size(GROWTH)))
                .came(format!("growth of {} KiB", count(grown >> 10)))
                .stop();
        }
        if let Some(other) = &mut other {
            other.exchange(b"meanwhile\n")?;
        }
        client.expect_pattern(pushed.bytes)?;
        client.exchange(b"friends again\n")?;
        client.finish_sending()?;
        client.expect_end()
    })
}

/// The descriptors that the server is allowed, and the clients that come.
const DESCRIPTORS: u64 = 32;
const CLIENTS: usize = 64;

/// The clients among them that must be served: there is room for these.
const FIRST: usize = 16;

/// More in a second is a spin; a retry by a timer is well below.
const WAKEUPS: u64 = 60;
/// A spin is runnable nearly all of the second; who wakes once may have to wait for a CPU.
const CPU: Duration = Duration::from_millis(600);

/// One message, and perhaps one that the trouble is over.
const COMPLAINTS: u64 = 3;

fn exactly_full(case: &Case) -> Result {
    proc::available()?;
    let launch = case.launch().descriptors(DESCRIPTORS);
    case.serve_with(launch, |server| {
        let room = (0..DESCRIPTORS)
            .filter(|number| !server.has_open(*number))
            .count();
        let _clients = gather(case, server, room)?;
        rests(
            server,
            format!("watching a server that has room for {room} clients, and has them"),
        )
    })
}

fn out_of_descriptors(case: &Case) -> Result {
    proc::available()?;
    let launch = case.launch().descriptors(DESCRIPTORS);
    case.serve_with(launch, |server| {
        let mut served = Vec::new();
        for _ in 0..case.at_once(FIRST) {
            let mut client = case.client(server)?;
            case.talk(&mut client, "served\n")?;
            served.push(client);
        }
        // These wait in the backlog, or are closed again, as the server likes;
        // a backlog that is full takes no more.
        let mut others = Vec::new();
        while served.len() + others.len() < CLIENTS {
            let within = case.deadline.within(Duration::from_secs(1));
            match Client::connect(server.address(), within) {
                Ok(client) => others.push(client),
                Err(_) => break,
            }
        }
        does_not_spin(server)?;
        for client in &mut served {
            case.talk(client, "still served\n")?;
        }
        let complaints = server.complaints();
        if complaints > COMPLAINTS {
            return Failure::new("counting the lines on standard error")
                .expected("one message, not one for each attempt")
                .came(format!("{} lines", count(complaints)))
                .stop();
        }
        drop(served);
        drop(others);
        // It may need a moment to see that they have left.
        let recovered = case
            .deadline
            .within(STALL)
            .until(|| case.visit(server).ok());
        match recovered {
            Some(()) => Ok(()),
            None => case.visit(server),
        }
    })
}

fn does_not_spin(server: &Server) -> Result {
    // The clients have just come: that is work to be done first.
    std::thread::sleep(Duration::from_millis(300));
    let before = server.snapshot();
    std::thread::sleep(Duration::from_secs(1));
    let activity = server.snapshot().since(&before);
    if activity.wakeups <= WAKEUPS && activity.cpu <= CPU {
        return Ok(());
    }
    Failure::new("watching a server that has no descriptor left")
        .sent(format!("{CLIENTS} clients, with ulimit -n {DESCRIPTORS}"))
        .expected("a server that sleeps until a client sends or leaves")
        .came(format!(
            "it woke {} times in a second, and was runnable for {} ms of it",
            count(activity.wakeups),
            activity.cpu.as_millis()
        ))
        .stop()
}
