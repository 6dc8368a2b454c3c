//! Clients that leave: in order, in the middle, or with a reset.

use std::time::Duration;

use crate::catalog::Traits;
use crate::check::{Case, Check, ORDINARY, Result};
use crate::checks::idle::rests;
use crate::client::{Client, Transfer};
use crate::proc;
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a half-close after 64 KiB is answered in full, then the end",
        cause: "the end of the stream is taken as \"drop everything\" while bytes still wait",
        section: "ch01-echo/endings.md#half-close",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: |case| half_close(case, 64 << 10),
    },
    Check {
        name: "a half-close after 4 MiB is answered in full, then the end",
        cause: "the end of the stream is taken as \"drop everything\" while bytes still wait",
        section: "ch01-echo/endings.md#half-close",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: |case| half_close(case, 4 << 20),
    },
    Check {
        name: "a half-close while bytes wait to be written is answered in full, then the end",
        cause: "the end of the stream is taken as \"drop everything\" while bytes still wait",
        section: "ch02-select/back-pressure.md#half-close",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: half_close_while_bytes_wait,
    },
    Check {
        name: "a reset right after connecting disturbs nobody",
        cause: "an error of accept, or of the first read, ends the server",
        section: "ch01-echo/listening.md#errors-of-accept",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: |case| {
            disturbs_nobody(case, |server| {
                case.stranger(server)?.reset();
                Ok(())
            })
        },
    },
    Check {
        name: "a reset after sending disturbs nobody",
        cause: "an error of read or write (ECONNRESET, EPIPE) ends the server",
        section: "ch01-echo/endings.md#reset",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: |case| {
            disturbs_nobody(case, |server| {
                let mut client = case.stranger(server)?;
                case.ask(&mut client, "forget it\n")?;
                client.reset();
                Ok(())
            })
        },
    },
    Check {
        name: "a reset in the middle of a reply disturbs nobody",
        cause: "an error of write (ECONNRESET, EPIPE) ends the server, or a handler runs \
                on a connection that another one has just closed",
        section: "ch03-reactor/loop.md#removal",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: |case| {
            disturbs_nobody(case, |server| {
                let mut client = with_data_pending(case, server)?;
                client.skip(100)?;
                client.reset();
                Ok(())
            })
        },
    },
    Check {
        name: "a disconnect with data pending disturbs nobody",
        cause: "a write to a client that is gone ends the server, or is tried for ever",
        section: "ch02-select/back-pressure.md#partial-writes",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: |case| {
            disturbs_nobody(case, |server| {
                drop(with_data_pending(case, server)?);
                Ok(())
            })
        },
    },
    Check {
        name: "a client that half-closes and leaves with bytes pending is let go",
        cause: "after the end of the stream a read only says \"the end\" again; it is a write \
                that tells that the client has gone, and the server never tries one",
        section: "ch02-select/back-pressure.md#half-close",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: leaves_with_bytes_pending,
    },
    Check {
        name: "a disconnect right after sending disturbs nobody",
        cause: "the answer finds no one (EPIPE, SIGPIPE), and that ends the server",
        section: "ch01-echo/endings.md#reset",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: |case| {
            disturbs_nobody(case, |server| {
                let mut client = case.stranger(server)?;
                case.ask(&mut client, "goodbye\n")
            })
        },
    },
];

/// How often each misbehaviour is tried: it may hit another moment each time.
const TIMES: usize = 20;

fn half_close(case: &Case, bytes: u64) -> Result {
    case.serve(|server| {
        let mut client = case.client(server)?;
        client.transfer(Transfer {
            bytes,
            half_close: true,
            pause: None,
        })?;
        case.visit(server)
    })
}

/// More than the kernel holds for a client that does not read, on the way
/// there and back: with buffers that grow, that is some MiB on Linux.
pub(super) const PENDING: u64 = 8 << 20;

/// The server reads the end of the stream while it still has bytes to write,
/// because the client has not read any yet. How many bytes that takes depends
/// on the buffers of the kernel and on the server's own, so all sizes are tried.
fn half_closed_with_bytes_waiting(
    case: &Case,
    server: &Server,
    then: impl Fn(Client, u64) -> Result,
) -> Result {
    /// Less than the smallest sensible limit of a server's own buffer.
    const STEP: u64 = 48 << 10;
    for bytes in (4..=15).map(|steps| steps * STEP) {
        let mut client = case.narrow_client(server)?;
        client.send_pattern(bytes)?;
        client.finish_sending()?;
        // Nothing tells a client when the server has read so far.
        std::thread::sleep(Duration::from_millis(100));
        then(client, bytes)?;
    }
    Ok(())
}

fn half_close_while_bytes_wait(case: &Case) -> Result {
    case.serve(|server| {
        half_closed_with_bytes_waiting(case, server, |mut client, bytes| {
            client.expect_pattern(bytes)?;
            client.expect_end()
        })
    })
}

fn leaves_with_bytes_pending(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        half_closed_with_bytes_waiting(case, server, |client, _| {
            drop(client);
            Ok(())
        })?;
        rests(server, "watching a server whose clients have left".into())?;
        case.visit(server)
    })
}

/// A client that has sent more than it can take back without reading.
pub(super) fn with_data_pending(case: &Case, server: &Server) -> Result<Client> {
    let mut client = case.narrow_client(server)?;
    case.flood(&mut client, PENDING, Duration::from_millis(50))?;
    Ok(client)
}

/// A client misbehaves again and again. A server of several clients must serve
/// a bystander all along, and every server the next client.
fn disturbs_nobody(case: &Case, misbehave: impl Fn(&Server) -> Result) -> Result {
    case.serve(|server| {
        let mut bystander = match case.at_once(2) {
            2 => Some(case.client(server)?),
            _ => None,
        };
        for _ in 0..TIMES {
            misbehave(server)?;
            if let Some(bystander) = &mut bystander {
                case.talk(bystander, "still here\n")?;
            }
        }
        case.visit(server)?;
        match &mut bystander {
            Some(bystander) => case.talk(bystander, "to the end\n"),
            None => Ok(()),
        }
    })
}
