use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::error::SqlState;

use super::*;
use crate::postgres::StallClock;
use crate::postgres::stream::ROOM;

/// What the receiver gets from a script of messages.
#[derive(Default)]
struct Heard {
    text: Vec<u8>,
    ends: Vec<(usize, u64)>,
    turns: usize,
}

impl Rows for Heard {
    fn text(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }
    fn end(&mut self, rows: u64) {
        self.ends.push((self.text.len(), rows));
    }
    async fn turn(&mut self) -> Result<()> {
        self.turns += 1;
        Ok(())
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// A server that sends all this in writes of `cut` bytes, and hangs up after this number of requests.
fn wire(said: &[u8], cut: usize, asked: usize) -> Wire {
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let said = said.to_vec();
    tokio::spawn(async move {
        for piece in said.chunks(cut) {
            theirs.write_all(piece).await.unwrap();
        }
        for _ in 0..asked {
            let _ = theirs.read(&mut [0; 1024]).await;
        }
    });
    Wire::new(Stream::new(Box::new(ours), ROOM), Redactor::default())
}

#[tokio::test]
async fn copies_come_whole_however_the_bytes_are_cut() {
    let long = vec![b'x'; 300_000];
    let said = [
        message(b'H', b"\0\0\0"),
        message(b'd', b"1\ta\n"),
        message(b'd', &long),
        message(b'c', b""),
        message(b'C', b"COPY 2\0"),
        message(b'C', b"ROLLBACK\0"),
        message(b'H', b"\0\0\0"),
        message(b'C', b"COPY 0\0"),
        message(b'Z', b"T"),
    ]
    .concat();
    for cut in [1, 7, 4096, said.len()] {
        let mut heard = Heard::default();
        wire(&said, cut, 1).copy(b"COPY", &mut heard).await.unwrap();
        assert_eq!(heard.text.len(), 4 + long.len(), "cut {cut}");
        assert_eq!(heard.ends, [(4 + long.len(), 2), (4 + long.len(), 0)]);
    }
}

#[tokio::test]
async fn between_two_reads_is_a_turn_whatever_is_cut() {
    // Rows that fit into the buffer, and notices that never do.
    let notice = vec![b'x'; READ - 100];
    let pair = [message(b'd', &[b'r'; 200]), message(b'N', &notice)].concat();
    let said = [pair.repeat(20), message(b'Z', b"T")].concat();
    let mut heard = Heard::default();
    wire(&said, 64 << 10, 1).copy(b"COPY", &mut heard).await.unwrap();
    assert_eq!(heard.text.len(), 20 * 200);
    assert!(heard.turns >= said.len() / READ, "{} turns", heard.turns);
}

#[tokio::test]
async fn a_refusal_leaves_the_session_usable() {
    let said = [
        message(b'E', b"SERROR\0C55P03\0Mcanceling statement due to lock timeout\0\0"),
        message(b'Z', b"E"),
        message(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"),
        message(b'D', b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff"),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"T"),
    ]
    .concat();
    let mut wire = wire(&said, said.len(), 2);
    let refused = wire.execute(b"COPY").await.unwrap_err();
    assert!(refused.is(&SqlState::LOCK_NOT_AVAILABLE), "{refused:?}");
    let rows = wire.query(b"SELECT").await.unwrap();
    assert_eq!(rows[0].text(0), Some("ab"));
    assert_eq!(rows[0].bytes(1), None);
}

#[tokio::test]
async fn nonsense_and_silence_end_it() {
    for said in [
        message(b'?', b""),
        vec![b'd', 0, 0, 0, 1],
        message(b'D', b"\0\x05"),
        message(b'd', b"x"),
    ] {
        let refused = wire(&said, 3, 1).query(b"SELECT").await.unwrap_err();
        assert!(matches!(refused, Refusal::Broken(_)), "{said:?}");
    }
    let ended = wire(&message(b'E', b"SFATAL\0C57P01\0Mterminating connection\0\0"), 5, 0)
        .ended()
        .await;
    assert!(ended.message().contains("terminating connection"), "{ended}");
}

#[tokio::test]
async fn a_message_longer_than_any_servers_is_refused_at_its_header() {
    for (kind, limit) in [(b'D', LONGEST), (b'T', LONGEST_DESCRIPTION)] {
        // The length counts its own four bytes.
        let length = u32::try_from(limit + 5).unwrap();
        let said = [&[kind][..], &length.to_be_bytes()].concat();
        let (of_many, of_one) = (
            wire(&said, said.len(), 1).execute(b"SELECT").await,
            wire(&said, said.len(), 1).execute_one(b"SELECT").await,
        );
        for refused in [of_many, of_one] {
            let error = refused.unwrap_err().into_error();
            let told = format!("a message of {} bytes", limit + 1);
            assert!(error.message().contains(&told), "{error}");
        }
    }
}

#[tokio::test]
async fn a_copy_in_both_directions_loses_nothing_however_often_the_wait_is_given_up() {
    let change = vec![b'w'; 300_000];
    let said = [
        message(b'W', b"\0\0\0"),
        message(b'd', b"first"),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'd', &change),
        message(b'c', b""),
        message(b'd', b"thrown away"),
        message(b'C', b"COPY 0\0"),
        message(b'Z', b"I"),
        message(b'E', b"SERROR\0C55006\0Mreplication slot is active\0\0"),
        message(b'Z', b"I"),
    ]
    .concat();
    for cut in [1000, 70_000, said.len()] {
        let mut wire = wire(&said, cut, 100);
        wire.begin_both(b"START_REPLICATION").await.unwrap();
        let mut partial = Partial::default();
        let mut heard = Vec::new();
        loop {
            let hearing = wire.hear_both(&mut partial);
            match tokio::time::timeout(Duration::ZERO, hearing).await {
                Err(_) => tokio::task::yield_now().await,
                Ok(Ok(Some(body))) => heard.push(body),
                Ok(Ok(None)) => break,
                Ok(Err(refusal)) => panic!("{refusal:?}"),
            }
        }
        assert_eq!(heard, [b"first".to_vec(), change.clone()], "cut {cut}");
        wire.say_both(b"r").await.unwrap();
        wire.end_both(&mut partial).await.unwrap();
        let refused = wire.begin_both(b"START_REPLICATION").await.unwrap_err();
        assert!(refused.is(&SqlState::OBJECT_IN_USE), "{refused:?}");
    }
}

#[tokio::test]
async fn a_server_that_ends_a_copy_in_both_directions_says_why() {
    let words = message(
        b'E',
        b"SERROR\0C58P01\0Mrequested WAL segment has already been removed\0\0",
    );
    for rest in [message(b'Z', b"I"), Vec::new(), message(b'd', b"late")] {
        let said = [&message(b'W', b"\0\0\0")[..], &words, &rest].concat();
        let mut wire = wire(&said, 7, 1);
        wire.begin_both(b"START_REPLICATION").await.unwrap();
        let refused = wire.hear_both(&mut Partial::default()).await.unwrap_err();
        let is_server = matches!(refused, Refusal::Server { .. });
        assert_eq!(is_server, !rest.starts_with(b"d"), "{refused:?}");
    }
    for said in [message(b'W', &[0; 3]), message(b'Z', b"I"), message(b'?', b"")] {
        let mut wire = wire(&said, 3, 1);
        let mut partial = Partial::default();
        let heard = match wire.begin_both(b"START_REPLICATION").await {
            Ok(()) => wire.hear_both(&mut partial).await.map(|_| ()),
            refused => refused,
        };
        assert!(matches!(heard, Err(Refusal::Broken(_))), "{said:?}");
    }
}

async fn heard_by_server(line: &mut tokio::io::DuplexStream) -> (u8, Vec<u8>) {
    let kind = line.read_u8().await.unwrap();
    let length = line.read_u32().await.unwrap() as usize;
    let mut body = vec![0; length - 4];
    line.read_exact(&mut body).await.unwrap();
    (kind, body)
}

#[tokio::test]
async fn a_server_that_warns_of_each_row_is_heard_while_it_takes_them() {
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let server = tokio::spawn(async move {
        assert_eq!(heard_by_server(&mut theirs).await.0, b'Q');
        theirs.write_all(&message(b'G', b"\0\0\0")).await.unwrap();
        let mut bytes = 0;
        while let (b'd', body) = heard_by_server(&mut theirs).await {
            bytes += body.len();
            for _ in 0..300 {
                theirs.write_all(&message(b'N', &[b'x'; 4096])).await.unwrap();
            }
        }
        theirs.write_all(&message(b'C', b"COPY 7\0")).await.unwrap();
        theirs.write_all(&message(b'Z', b"T")).await.unwrap();
        bytes
    });
    let mut wire = Wire::new(Stream::new(Box::new(ours), ROOM), Redactor::default());
    let (pieces, mut received) = tokio::sync::mpsc::channel(4);
    for piece in [
        Piece::Rows(vec![b'1'; 500_000].into()),
        Piece::Rows(vec![b'2'; 500_000].into()),
        Piece::End,
    ] {
        pieces.send(piece).await.unwrap();
    }
    let clock = StallClock::default();
    let copying = wire.copy_in(b"COPY", &mut received, &clock);
    let rows = tokio::time::timeout(Duration::from_secs(20), copying).await.unwrap();
    assert_eq!(rows.unwrap(), 7);
    assert_eq!(server.await.unwrap(), 1_000_000);
    assert_eq!(clock.waiting(), Duration::ZERO);
}

#[tokio::test]
async fn the_clock_runs_while_a_server_takes_no_rows() {
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    theirs.write_all(&message(b'G', b"\0\0\0")).await.unwrap();
    let mut wire = Wire::new(Stream::new(Box::new(ours), ROOM), Redactor::default());
    let (pieces, mut received) = tokio::sync::mpsc::channel(1);
    pieces.send(Piece::Rows(vec![b'1'; 500_000].into())).await.unwrap();
    let clock = StallClock::default();
    tokio::select! {
        copied = wire.copy_in(b"COPY", &mut received, &clock) => panic!("{copied:?}"),
        () = clock.watch(Duration::from_millis(50)) => {}
    }
}
