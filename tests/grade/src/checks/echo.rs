//! Everything comes back: any bytes, in any chunks.

use crate::bytes::pattern;
use crate::catalog::Traits;
use crate::check::{Case, Check, ORDINARY, Result};
use crate::client::Transfer;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "one byte comes back",
        cause: "the server waits for a line or for a full buffer before it answers",
        section: "ch01-echo/seven-steps.md#read-and-write",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: |case| say(case, &[b"x"]),
    },
    Check {
        name: "a lone \"0\" is data",
        cause: "the loop ends on a string that counts as false, not on a read of 0 bytes",
        section: "ch01-echo/bytes.md#end-of-stream",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        // After other bytes, too, and twice: it is data wherever it stands.
        run: |case| say(case, &[b"0", b"hello", b"0", b"0\n", b"00"]),
    },
    Check {
        name: "every byte value comes back unchanged",
        cause: "bytes pass through a text type, or a NUL or newline is special",
        section: "ch01-echo/bytes.md#bytes-not-messages",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: every_byte_value,
    },
    Check {
        name: "messages of 4095, 4096, 4097, 5000 and 8191 bytes come back at once",
        cause: "a buffer below the program reads ahead, and the tail waits there for more",
        section: "ch01-echo/bytes.md#bytes-not-messages",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: |case| {
            let sizes = [4095, 4096, 4097, 5000, 8191];
            let messages = sizes.map(|size| pattern(size as u64, size));
            say(case, &messages)
        },
    },
    Check {
        name: "bytes sent one at a time come back one at a time",
        cause: "the server answers once for several reads, or drops a short one",
        section: "ch01-echo/bytes.md#bytes-not-messages",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: |case| {
            let letters: Vec<&[u8]> = b"abcdefghijklmnopqrstuvwxyz".chunks(1).collect();
            say(case, &letters.repeat(8))
        },
    },
    Check {
        name: "16 MiB come back exactly while the client writes and reads at once",
        cause: "a write that took only a part is treated as finished, or new bytes \
                overwrite those that still wait",
        section: "ch02-select/back-pressure.md#partial-writes",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: sixteen_mebibytes,
    },
    Check {
        name: "64 KiB written in full before the first read come back",
        cause: "the server stops reading while its answer waits, or loses what it read ahead",
        section: "ch01-echo/bytes.md#lockstep",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: |case| say(case, &[pattern(0, 64 * 1024)]),
    },
    Check {
        name: "20 clients are served one after another",
        cause: "the end of one client ends the accept loop, or its socket is never closed",
        section: "ch01-echo/seven-steps.md#the-loop",
        descriptors: ORDINARY,
        applies: Traits::is_echo,
        run: twenty_clients,
    },
];

/// One client sends each message when the one before it is back.
fn say(case: &Case, messages: &[&[u8]]) -> Result {
    case.serve(|server| {
        let mut client = case.client(server)?;
        for message in messages {
            client.exchange(message)?;
        }
        Ok(())
    })
}

fn every_byte_value(case: &Case) -> Result {
    let values: Vec<u8> = (0..=255).collect();
    // A lone "0" has a check of its own.
    let alone = values.chunks(1).filter(|value| value != b"0");
    case.serve(|server| {
        let mut client = case.client(server)?;
        client.exchange(&values)?;
        for value in alone {
            client.exchange(value)?;
        }
        Ok(())
    })
}

fn sixteen_mebibytes(case: &Case) -> Result {
    case.serve(|server| {
        let mut client = case.client(server)?;
        client.transfer(Transfer {
            bytes: 16 << 20,
            half_close: false,
            pause: None,
        })?;
        // Not a byte more than was sent: the next one is the next one.
        client.exchange(b"and no more\n")
    })
}

fn twenty_clients(case: &Case) -> Result {
    case.serve(|server| {
        for number in 1..=20 {
            let mut client = case.client(server)?;
            client.exchange(format!("client {number}\n").as_bytes())?;
            client.finish_sending()?;
            client.expect_end()?;
        }
        Ok(())
    })
}
