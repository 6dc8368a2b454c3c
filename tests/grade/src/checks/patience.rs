//! Clients that take their time.

use crate::catalog::Traits;
use crate::check::{Case, Check, ORDINARY, Result};
use crate::client::Transfer;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "an idle client stays connected",
        cause: "a default timeout of the library drops a client that says nothing",
        section: "ch01-echo/bytes.md#timeouts",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: idle_client,
    },
    Check {
        name: "a client that stops reading for a while still gets every byte",
        cause: "a write that times out, or takes only a part, is treated as finished",
        section: "ch01-echo/bytes.md#timeouts",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: pause,
    },
];

fn idle_client(case: &Case) -> Result {
    case.serve(|server| {
        let mut client = case.client(server)?;
        client.expect_silence(case.patience)?;
        client.exchange(b"hello?\n")?;
        client.expect_silence(case.patience / 2)?;
        client.exchange(b"still there?\n")
    })
}

/// A narrow client: the server's write blocks, or takes only a part, soon.
fn pause(case: &Case) -> Result {
    case.serve(|server| {
        let mut client = case.narrow_client(server)?;
        client.transfer(Transfer {
            bytes: 6 << 20,
            half_close: true,
            pause: Some((1 << 20, case.patience)),
        })
    })
}
