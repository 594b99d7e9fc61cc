//! Servers: they start as root and become somebody, fork workers, share memory, sync to disk, and end when they are
//! told.

use anyhow::{Result, ensure};

use super::{PATIENCE, debian};
use crate::container::{Builder, Container};
use crate::context::Ctx;
use crate::harness::Registry;
use crate::same;

const TERM: i32 = 15;
const INT: i32 = 2;
const QUIT: i32 = 3;

pub fn register(t: &mut Registry) {
    t.add(
        "nginx serves, takes a new configuration without an end, and ends gracefully",
        async |c| nginx(c, debian(c)?).await,
    );
    t.add(
        "PostgreSQL keeps what was written when a process of it is killed",
        async |c| postgresql(c, debian(c)?).await,
    );
    t.add(
        "redis answers, saves in the background, and finds what it saved",
        async |c| redis(c, debian(c)?).await,
    );
    t.add("rsyslog writes down what programs log", async |c| {
        // Without the kernel's log, which containers may not read.
        let script = "sed -i /imklog/d /etc/rsyslog.conf; exec rsyslogd -n";
        let container = debian(c)?.args(&["sh", "-c", script]).start().await?;
        c.within(PATIENCE, "rsyslogd listens", async || {
            Ok(container.sh("test -S /dev/log").await?.code == 0)
        })
        .await?;
        container.sh("logger -t greeting hello").await?.ok()?;
        c.within(PATIENCE, "the line is in /var/log/syslog", async || {
            Ok(container.sh("grep -q 'greeting: hello' /var/log/syslog").await?.code == 0)
        })
        .await?;
        container.kill(TERM).await?;
        same!(container.wait().await?, 0);
        Ok(())
    });
}

/// Debian's configuration, as a container's only process.
pub async fn nginx(c: &Ctx, container: Builder<'_>) -> Result<()> {
    let container = container.args(&["nginx", "-g", "daemon off;"]).start().await?;
    let page = async |container: &Container<'_>| container.sh("curl -sf http://localhost/").await;
    c.within(PATIENCE, "nginx serves", async || Ok(page(&container).await?.code == 0))
        .await?;
    ensure!(page(&container).await?.ok()?.contains("Welcome to nginx"));
    let workers = "ps -eo user=,args= | grep '[n]ginx: worker' | cut -d' ' -f1 | sort -u";
    same!(container.sh(workers).await?.ok()?, "www-data\n");
    let reload = "echo changed > /var/www/html/new; \
        sed -i 's|location / {|location /new { add_header X-New yes; } location / {|' \
        /etc/nginx/sites-available/default; \
        nginx -t -q && nginx -s reload";
    container.sh(reload).await?.ok()?;
    c.within(PATIENCE, "the new configuration holds", async || {
        let answer = container.sh("curl -sfi http://localhost/new").await?;
        Ok(answer.stdout.contains("X-New: yes") && answer.stdout.ends_with("changed\n"))
    })
    .await?;
    container.kill(QUIT).await?;
    same!(container.wait().await?, 0);
    Ok(())
}

/// Debian's cluster, run by its own user.
pub async fn postgresql(c: &Ctx, container: Builder<'_>) -> Result<()> {
    let script = "install -d -o postgres -g postgres -m 2775 /run/postgresql; exec su postgres -c 'exec \
        /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main \
        -c config_file=/etc/postgresql/15/main/postgresql.conf'";
    let container = container.args(&["sh", "-c", script]).start().await?;
    let sql = async |text: &str| {
        container
            .sh(&format!("su postgres -c \"psql -qAtX -c '{text}'\""))
            .await
    };
    let answers = async || Ok(sql("select 1").await?.code == 0);
    c.within(PATIENCE, "PostgreSQL answers", answers).await?;
    sql("create table t (n int); insert into t select generate_series(1, 1000)")
        .await?
        .ok()?;
    same!(sql("select sum(n) from t").await?.ok()?, "500500\n");
    // One server process killed makes it restart them all, and recover.
    let kill = "kill -9 $(pgrep -u postgres -f checkpointer)";
    container.sh(kill).await?.ok()?;
    c.within(PATIENCE, "it answers after the crash", answers).await?;
    same!(sql("select sum(n) from t").await?.ok()?, "500500\n");
    let postgres = container
        .sh("head -1 /var/lib/postgresql/15/main/postmaster.pid")
        .await?;
    let stop = format!("kill -{INT} {}", postgres.ok()?.trim());
    container.sh(&stop).await?.ok()?;
    same!(container.wait().await?, 0);
    Ok(())
}

/// Its file is written by a forked process.
pub async fn redis(c: &Ctx, container: Builder<'_>) -> Result<()> {
    let serve = [
        "setpriv",
        "--reuid=redis",
        "--regid=redis",
        "--clear-groups",
        "redis-server",
        "--dir",
        "/var/lib/redis",
    ];
    let container = container.args(&serve).start().await?;
    c.within(PATIENCE, "redis answers", async || {
        Ok(container.sh("redis-cli ping").await?.stdout == "PONG\n")
    })
    .await?;
    container
        .sh("redis-cli set greeting hello && redis-cli bgsave")
        .await?
        .ok()?;
    c.within(PATIENCE, "the save is over", async || {
        let info = container.sh("redis-cli info persistence").await?;
        let info = info.ok()?;
        Ok(info.contains("rdb_bgsave_in_progress:0") && info.contains("rdb_last_bgsave_status:ok"))
    })
    .await?;
    let found = "redis-cli debug reload nosave && redis-cli get greeting";
    let found = container.sh(found).await?;
    ensure!(
        found.stdout.ends_with("hello\n") || found.stdout.contains("DEBUG command not allowed"),
        "{found:?}"
    );
    same!(container.sh("head -c 5 /var/lib/redis/dump.rdb").await?.ok()?, "REDIS");
    container.kill(TERM).await?;
    same!(container.wait().await?, 0);
    Ok(())
}
