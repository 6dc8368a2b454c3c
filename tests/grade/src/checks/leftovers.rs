//! Nothing is kept of a client that has left.

use std::time::Duration;

use crate::bytes::count;
use crate::catalog::{Clients, Traits};
use crate::check::{Case, Check, Failure, ORDINARY, Result};
use crate::checks::crowd::gather;
use crate::checks::ending::{PENDING, with_data_pending};
use crate::client::STALL;
use crate::proc;
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "descriptors return when clients leave",
        cause: "a socket is not closed, or is closed in one process and open in another",
        section: "ch02-select/steps.md#leaving",
        descriptors: ORDINARY + 20,
        applies: Traits::is_tcp_server,
        run: descriptors_return,
    },
    Check {
        name: "memory does not grow with clients that left",
        cause: "the buffer or the handler of a client outlives its connection",
        section: "ch02-select/steps.md#leaving",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: memory_is_steady,
    },
    Check {
        name: "the next client gets only its own bytes",
        cause: "a buffer is kept by the number of the descriptor, which the kernel gives \
                to the next client",
        section: "ch03-reactor/handlers.md#generations",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: no_stale_bytes,
    },
    Check {
        name: "the listener outlives the last client",
        cause: "the listener is asked for an end of its stream like a client, and closed",
        section: "ch01-echo/seven-steps.md#the-loop",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: listener_stays,
    },
];

fn descriptors_return(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        case.visit(server)?;
        let before = at_rest(case, server);
        for _ in 0..4 {
            // Each leaves in its own way.
            for (number, mut client) in gather(case, server, case.at_once(20))?
                .into_iter()
                .enumerate()
            {
                case.ask(&mut client, "no time to read the answer\n")?;
                match number % 3 {
                    0 => drop(client),
                    1 => client.reset(),
                    _ => client.finish_sending()?,
                }
            }
        }
        drop(with_data_pending(case, server)?);
        descriptors_are_at_most(case, server, before)
    })
}

/// The descriptors of a server that has just been visited, once the visitor's
/// is closed: a count that does not change for a while.
pub(super) fn at_rest(case: &Case, server: &Server) -> usize {
    let mut last = server.descriptors();
    let same = || {
        let before = last;
        std::thread::sleep(Duration::from_millis(100));
        last = server.descriptors();
        (last == before).then_some(last)
    };
    let steady = case.deadline.within(STALL).until(same);
    steady.unwrap_or_else(|| server.descriptors())
}

pub(super) fn descriptors_are_at_most(case: &Case, server: &Server, most: usize) -> Result {
    let returned = || (server.descriptors() <= most).then_some(());
    match case.deadline.within(STALL).until(returned) {
        Some(()) => Ok(()),
        None => Failure::new("counting the server's descriptors after its clients left")
            .expected(format!("{most}, as before they came"))
            .came(server.descriptors().to_string())
            .stop(),
    }
}

/// The clients that leave in a round.
const LEAVERS: usize = 100;

/// The first round fills what is filled once; growth counts from then on.
const ROUNDS: usize = 4;

/// A leak grows by this in every round, some 1.3 KiB for each leaver. What an
/// allocator keeps by chance may be more, but not in each of them.
const GROWTH: u64 = 128 << 10;

fn memory_is_steady(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        case.visit(server)?;
        let descriptors = at_rest(case, server);
        let mut after_round = Vec::new();
        for _ in 0..ROUNDS {
            for _ in 0..LEAVERS {
                let mut client = case.narrow_client(server)?;
                // As much as it takes at once: some of it will find no way out.
                case.flood(&mut client, PENDING, Duration::from_millis(1))?;
            }
            case.visit(server)?;
            descriptors_are_at_most(case, server, descriptors)?;
            after_round.push(server.resident());
        }
        let mut rounds = after_round.windows(2);
        if !rounds.all(|round| round[1] >= round[0] + GROWTH) {
            return Ok(());
        }
        let rounds = after_round.iter().map(|bytes| count(bytes >> 10));
        Failure::new(format!(
            "measuring the server after each {LEAVERS} clients that left"
        ))
        .expected("KiB of memory that do not grow every time")
        .came(rounds.collect::<Vec<_>>().join(", "))
        .stop()
    })
}

fn no_stale_bytes(case: &Case) -> Result {
    case.serve(|server| {
        case.visit(server)?;
        let descriptors = at_rest(case, server);
        for round in 0..10 {
            let leaver = with_data_pending(case, server)?;
            if round % 2 == 0 {
                drop(leaver);
            } else {
                leaver.reset();
            }
            // The next one gets the leaver's descriptor once that is free.
            if proc::available().is_ok() {
                descriptors_are_at_most(case, server, descriptors)?;
            }
            let mut next = case.client(server)?;
            case.talk(&mut next, "mine\n")?;
            next.finish_sending()?;
            next.expect_end()?;
        }
        Ok(())
    })
}

fn listener_stays(case: &Case) -> Result {
    // A client each time, and more where there may be more.
    let together = match case.traits().clients {
        Clients::One => 1,
        _ => case.at_once(3),
    };
    case.serve(|server| {
        for _ in 0..3 {
            let mut clients = gather(case, server, together)?;
            for client in &mut clients {
                case.talk(client, "hello\n")?;
                client.finish_sending()?;
                client.expect_end()?;
            }
            drop(clients);
            // A moment in which nothing happens: a loop may turn meanwhile.
            std::thread::sleep(Duration::from_millis(200));
        }
        case.visit(server)
    })
}
