//! Many clients at once.

use std::time::Duration;

use crate::bytes::{count, pattern};
use crate::catalog::Model;
use crate::check::{Case, Check, Failure, ORDINARY, Result};
use crate::client::{Client, STALL};
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "idle clients delay nobody",
        cause: "the server waits for one client, in a blocking read or for the rest of a \
                message, while others have sent",
        section: "ch02-select/steps.md#readiness",
        descriptors: ORDINARY,
        applies: |traits| traits.echoes_to(2),
        run: idle_clients,
    },
    Check {
        name: "1,000 clients at once are served",
        cause: "a limit of descriptors or of the backlog, or work that grows with each client",
        section: "ch02-select/limits.md#many-clients",
        descriptors: ORDINARY + 1_000,
        applies: |traits| traits.serves(1_000),
        run: |case| crowd_is_served(case, 1_000),
    },
    Check {
        name: "10,000 clients at once are served",
        cause: "a limit of descriptors or of the backlog, or work that grows with each client",
        section: "ch03-reactor/echo.md#many-clients",
        descriptors: ORDINARY + 10_000,
        applies: |traits| traits.serves(10_000),
        run: |case| crowd_is_served(case, 10_000),
    },
    Check {
        name: "past descriptor 1023 newcomers are closed, and all others served",
        cause: "select(2) cannot watch a descriptor of 1024 (FD_SETSIZE) or above, and \
                nobody looks at the descriptor's value",
        section: "ch02-select/limits.md#fd-setsize",
        descriptors: ORDINARY + NEWCOMERS,
        applies: |traits| traits.is_echo() && traits.model == Model::Select,
        run: beyond_fd_setsize,
    },
];

/// Clients for a server that can watch 1024 descriptors.
const NEWCOMERS: u64 = 1_100;

/// So many connections wait for accept at most, before one of them shows that
/// it is served: a backlog that overflows costs a second for each retry of TCP.
const WAVE: usize = 16;

/// Connects a crowd, of whom all are being served.
pub(super) fn gather(case: &Case, server: &Server, size: usize) -> Result<Vec<Client>> {
    let mut crowd = Vec::with_capacity(size);
    for number in 1..=size {
        let mut client = case.client(server)?;
        // accept takes them in order: when this one is served, all before are.
        if number % WAVE == 0 || number == size {
            case.talk(&mut client, "?")?;
        }
        crowd.push(client);
    }
    Ok(crowd)
}

fn idle_clients(case: &Case) -> Result {
    case.serve(|server| {
        let idle = case.at_once(6) - 1;
        let mut clients = Vec::new();
        for number in 0..idle {
            let mut client = case.client(server)?;
            if number == 0 {
                // More than a buffer of 4096, and less than two.
                client.send(pattern(0, 5000))?;
            }
            clients.push(client);
        }
        let mut busy = case.client(server)?;
        for _ in 0..20 {
            busy.exchange(b"quick\n")?;
        }
        clients[0].expect(pattern(0, 5000))?;
        clients
            .iter_mut()
            .try_for_each(|client| client.exchange(b"awake\n"))
    })
}

fn crowd_is_served(case: &Case, size: usize) -> Result {
    // A descriptor for each, and plenty for what the server itself needs.
    let launch = case.launch().descriptors(2 * size as u64);
    case.serve_with(launch, |server| {
        let mut crowd = gather(case, server, size)?;
        for round in 1..=2 {
            let message = |number: usize| format!("client {number}, round {round}\n");
            for (number, client) in crowd.iter_mut().enumerate() {
                case.ask(client, &message(number))?;
            }
            for (number, client) in crowd.iter_mut().enumerate() {
                case.hear(client, &message(number))?;
            }
        }
        drop(crowd);
        case.visit(server)
    })
}

fn beyond_fd_setsize(case: &Case) -> Result {
    let launch = case.launch().descriptors(4096);
    case.serve_with(launch, |server| {
        let mut crowd = gather(case, server, 1_000)?;
        for _ in crowd.len()..NEWCOMERS as usize {
            crowd.push(case.stranger(server)?);
        }
        // accept takes them in order: when the last one is closed, the server
        // has decided about all of them.
        let decided = crowd
            .last_mut()
            .is_some_and(|last| last.is_closed_within(STALL));
        if !decided {
            return Failure::new(format!("connecting {} clients", count(NEWCOMERS)))
                .expected("the last one to be closed by the server")
                .came("it is left hanging")
                .stop();
        }
        let is_closed = |client: &mut Client| client.is_closed_within(Duration::from_millis(1));
        let refused = crowd[1_000..].iter_mut().position(is_closed);
        let served = 1_000 + refused.unwrap_or_default();
        let unanswered = crowd[served..]
            .iter_mut()
            .position(|client| !is_closed(client));
        if let Some(number) = unanswered {
            let (first, hanging) = (served as u64 + 1, (served + number) as u64 + 1);
            return Failure::new(format!("connecting {} clients", count(NEWCOMERS)))
                .expected(format!("all from number {} on to be closed", count(first)))
                .came(format!("number {} is left hanging", count(hanging)))
                .stop();
        }
        crowd.truncate(served);
        for client in &mut crowd {
            client.exchange(b"served\n")?;
        }
        // Room is made, and the server may need a moment to see it.
        crowd.truncate(served - 50);
        let newcomer = case
            .deadline
            .within(STALL)
            .until(|| case.visit(server).ok());
        if newcomer.is_none() {
            case.visit(server)?;
        }
        let mut newcomers = gather(case, server, 40)?;
        let mut all = crowd.iter_mut().chain(&mut newcomers);
        all.try_for_each(|client| client.exchange(b"all of us\n"))
    })
}
