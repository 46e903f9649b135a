//! A session with a throwaway server of pgstow's, by the client library alone.

use pgstow::postgres::ScratchServer;
use secrecy::ExposeSecret;
use tokio_postgres::Client;

pub async fn client(server: &ScratchServer) -> Client {
    let info = server.info();
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(info.host.as_deref().unwrap())
        .port(info.port.unwrap())
        .user(info.user.as_deref().unwrap())
        .password(info.password.as_ref().unwrap().expose_secret())
        .dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
