//! A connection through the proxy: each request with its fault, if one is scripted for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Script;
use super::fault::Fault;
use super::message::{Head, answer, reject, unchunked};

pub async fn serve(mut client: TcpStream, upstream: String, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    loop {
        serve_one(&mut client, &upstream, &script).await?;
        if !script.lock().expect("no panic").keeps {
            return client.shutdown().await;
        }
    }
}

/// An error ends the connection.
async fn serve_one(client: &mut TcpStream, upstream: &str, script: &Arc<Mutex<Script>>) -> std::io::Result<()> {
    let over = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    let keeps = script.lock().expect("no panic").keeps;
    let Some((mut head, mut body)) = Head::read(client).await? else {
        return Err(over());
    };
    let mut words = head.first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let fault = script.lock().expect("no panic").decide(&method, &target, &head);
    let length: usize = head
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if head.get("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        head.remove("expect");
    }

    let take = match fault {
        Some(Fault::Reset { after }) => after.min(length),
        _ => length,
    };
    body.reserve(take.saturating_sub(body.len()));
    while body.len() < take {
        let before = body.len();
        if client.read_buf(&mut body).await? == 0 {
            return Err(over());
        }
        if let Some(Fault::Slow { bytes_per_second }) = fault {
            let seconds = (body.len() - before) as f64 / bytes_per_second as f64;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
    }

    match fault {
        Some(Fault::Reset { .. }) => {
            client.set_zero_linger()?;
            return Err(over());
        }
        Some(Fault::Reject(status)) => return reject(client, &method, status, keeps).await,
        Some(Fault::Answer(status, body)) => return answer(client, &method, status, body, keeps).await,
        Some(Fault::CorruptBody) if !body.is_empty() => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Some(Fault::Strip(marks)) => {
            let mut text = String::from_utf8_lossy(&body).into_owned();
            for (from, to) in marks {
                while let Some(start) = text.find(from) {
                    let after = start + from.len();
                    let end = text[after..].find(to).map_or(after, |at| after + at + to.len());
                    text.replace_range(start..end, "");
                }
            }
            body = text.into_bytes();
            head.remove("content-length");
            head.headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        _ => {}
    }

    if fault == Some(Fault::Stale) {
        let old = script.lock().expect("no panic").lists.get(&target).cloned();
        if let Some(old) = old {
            client.write_all(&old).await?;
            client.shutdown().await?;
            return Err(over());
        }
    }
    if let Some(Fault::Delay(time)) = fault {
        script.lock().expect("no panic").delayed += 1;
        tokio::time::sleep(time).await;
        script.lock().expect("no panic").delayed -= 1;
    }

    let mut server = TcpStream::connect(upstream).await?;
    head.remove("connection");
    head.headers.push(("Connection".to_owned(), "close".to_owned()));
    server.write_all(&head.bytes()).await?;
    server.write_all(&body).await?;
    drop(body);
    let Some((mut answer, rest)) = Head::read(&mut server).await? else {
        return Err(over());
    };
    if keeps {
        answer.remove("connection");
    }
    match fault {
        Some(Fault::LoseAnswer) => {
            tokio::io::copy(&mut server, &mut tokio::io::sink()).await?;
            client.set_zero_linger()?;
            return Err(over());
        }
        Some(Fault::HoldAnswer) => {
            tokio::io::copy(&mut server, &mut tokio::io::sink()).await?;
            tokio::io::copy(client, &mut tokio::io::sink()).await?;
            return Err(over());
        }
        Some(Fault::Lie(status)) => {
            tokio::io::copy(&mut server, &mut tokio::io::sink()).await?;
            return reject(client, &method, status, keeps).await;
        }
        Some(Fault::WrongChecksum) => {
            answer.remove("x-amz-checksum-sha256");
            let wrong = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned();
            answer.headers.push(("x-amz-checksum-sha256".to_owned(), wrong));
        }
        Some(Fault::NoChecksum) => answer.remove("x-amz-checksum-sha256"),
        _ => {}
    }
    if let Some(Fault::Unlisted(ending)) = fault {
        let mut body = rest;
        server.read_to_end(&mut body).await?;
        if answer.get("transfer-encoding").is_some() {
            answer.remove("transfer-encoding");
            body = unchunked(&body);
        }
        let mut text = String::from_utf8_lossy(&body).into_owned();
        while let Some(end) = text.find(&format!("{ending}</Key>")) {
            let start = text[..end].rfind("<Contents>").expect("an object of the list");
            let after = end + text[end..].find("</Contents>").expect("its end") + "</Contents>".len();
            text.replace_range(start..after, "");
        }
        answer.remove("content-length");
        answer
            .headers
            .push(("Content-Length".to_owned(), text.len().to_string()));
        client.write_all(&[answer.bytes(), text.into_bytes()].concat()).await?;
        client.shutdown().await?;
        return Err(over());
    }
    client.write_all(&answer.bytes()).await?;
    if let Some(Fault::CutAnswer { after }) = fault {
        client.write_all(&rest[..rest.len().min(after)]).await?;
        let left = after.saturating_sub(rest.len()) as u64;
        tokio::io::copy(&mut (&mut server).take(left), client).await?;
        client.shutdown().await?;
        return Err(over());
    }
    if fault == Some(Fault::CorruptAnswer) {
        let mut body = rest;
        server.read_to_end(&mut body).await?;
        let middle = body.len() / 2;
        if let Some(byte) = body.get_mut(middle) {
            *byte ^= 1;
        }
        client.write_all(&body).await?;
        client.shutdown().await?;
        return Err(over());
    }
    let is_list = method == "GET" && target.contains("list-type=2");
    if is_list && script.lock().expect("no panic").remembers {
        let mut body = rest;
        server.read_to_end(&mut body).await?;
        client.write_all(&body).await?;
        answer.remove("connection");
        answer.headers.push(("Connection".to_owned(), "close".to_owned()));
        let whole = [answer.bytes(), body].concat();
        script.lock().expect("no panic").lists.entry(target).or_insert(whole);
        return Ok(());
    }
    client.write_all(&rest).await?;
    let copied = tokio::io::copy(&mut server, client).await?;
    script.lock().expect("no panic").answered += rest.len() as u64 + copied;
    Ok(())
}
