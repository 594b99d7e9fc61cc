//! What makes a container feel like a machine: packages, users, job control, debuggers, init scripts.

use anyhow::ensure;

use super::{PATIENCE, debian, script};
use crate::harness::Registry;
use crate::same;

/// Makes a package with a conffile, a user of its own and a set-user-ID program, and installs it from a repository.
const APT: &str = r#"
p=/tmp/greeting; mkdir -p $p/DEBIAN $p/usr/bin $p/etc /repo
printf 'Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\nDescription: says hello\n' > $p/DEBIAN/control
echo /etc/greeting > $p/DEBIAN/conffiles; echo hello > $p/etc/greeting
printf '#!/bin/sh\nset -e\n[ "$1" != configure ] || useradd --system greeting\n' > $p/DEBIAN/postinst
printf '#!/bin/sh\nset -e\n[ "$1" != purge ] || userdel greeting\n' > $p/DEBIAN/postrm
printf '#!/bin/sh\ncat /etc/greeting\n' > $p/usr/bin/greet
chmod 755 $p/DEBIAN/post* $p/usr/bin/greet; cp /usr/bin/id $p/usr/bin/who-am-i; chmod 4755 $p/usr/bin/who-am-i
dpkg-deb --root-owner-group -b $p /repo/greeting.deb > /dev/null
cd /repo; { dpkg-deb -f greeting.deb; echo "Filename: ./greeting.deb"; echo "Size: $(stat -c %s greeting.deb)"
echo "SHA256: $(sha256sum greeting.deb | cut -d' ' -f1)"; } > Packages
echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list
apt-get -qq update
apt-get -qq --yes install greeting > /tmp/log 2>&1 || { cat /tmp/log; exit 1; }
greet; getent passwd greeting | cut -d: -f1; stat -c %A /usr/bin/who-am-i
setpriv --reuid=greeting --clear-groups who-am-i -un
apt-get -qq --yes purge greeting > /tmp/log 2>&1 || { cat /tmp/log; exit 1; }
getent passwd greeting || echo gone
"#;

const TRACE: &str = r#"
strace -f -o /tmp/trace sh -c 'true; /bin/false; exit 3' || echo "ended with $?"
grep -c 'execve("/bin/false"' /tmp/trace
grep -q 'exited with 3' /tmp/trace && echo traced
gdb -q -batch -nx -ex 'catch syscall exit_group' -ex run -ex 'p $_siginfo.si_signo' -ex continue --args /bin/false > /tmp/gdb 2>&1
grep -o 'exited with code 01' /tmp/gdb
sleep 100 & gdb -q -batch -nx -p $! -ex 'p (int)getpid()' > /tmp/gdb2 2>&1 || true
kill $!; grep -qE 'clock_nanosleep|nanosleep|sleep' /tmp/gdb2 && echo attached
"#;

const USERS: &str = r#"
useradd -m tester; echo 'tester:word' | chpasswd; echo 'root:word' | chpasswd
su tester -c 'id -un; echo $HOME'
su - tester -c 'echo word | su root -c "id -u" 2> /dev/null'
echo 'tester ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/tester
su tester -c 'sudo -n id -un; sudo -n -u www-data id -un'
su tester -c 'touch /etc/shadow 2> /dev/null || echo denied; cat /etc/shadow 2> /dev/null || echo hidden'
{ setpriv --reuid=tester --clear-groups --no-new-privs sudo -n true 2>&1 || true; } | grep -om1 'no new privileges'
"#;

const USERS_SAY: &str = "tester\n/home/tester\n0\nroot\nwww-data\ndenied\nhidden\nno new privileges\n";

const INIT: &str = r#"
rm -f /usr/sbin/policy-rc.d
service redis-server start > /dev/null; redis-cli ping
service redis-server status | grep -o 'is running'
service nginx start > /dev/null; curl -sf http://localhost/ | grep -o '<title>.*</title>'
service nginx restart > /dev/null; service nginx status | grep -o 'is running'
service cron start > /dev/null; pgrep -x cron > /dev/null && echo cron
# Its script looks at /proc/<pid>/exe of another user's process, which needs CAP_SYS_PTRACE: no pod has that.
redis-cli shutdown
for one in cron nginx; do service $one stop > /dev/null; done
for try in $(seq 200); do ps -C cron,nginx,redis-server > /dev/null || break; sleep 0.1; done
ps -C cron,nginx,redis-server -o pid=,ppid=,stat=,args= || echo stopped
"#;

const INIT_SAYS: &str = "PONG\nis running\n<title>Welcome to nginx!</title>\nis running\ncron\nstopped\n";

pub fn register(t: &mut Registry) {
    t.add(
        "apt-get installs from a repository and removes without a trace",
        async |c| {
            let output = script(c, APT).await?;
            same!(output.ok()?, "hello\ngreeting\n-rwsr-xr-x\nroot\ngone\n", "{output:?}");
            Ok(())
        },
    );
    t.add("strace and gdb follow children and attach to processes", async |c| {
        let output = script(c, TRACE).await?;
        same!(
            output.ok()?,
            "ended with 3\n1\ntraced\nexited with code 01\nattached\n",
            "{output:?}"
        );
        Ok(())
    });
    t.add("su, sudo and set-user-ID programs change users", async |c| {
        let output = script(c, USERS).await?;
        same!(output.ok()?, USERS_SAY, "{output:?}");
        Ok(())
    });
    t.add("init scripts start, query, restart and stop services", async |c| {
        let output = script(c, INIT).await?;
        same!(output.ok()?, INIT_SAYS, "{output:?}");
        Ok(())
    });
    t.add(
        "a shell at a terminal stops, continues and interrupts jobs",
        async |c| {
            let shell = debian(c)?.args(&["bash", "--norc", "-i"]).terminal().stdin();
            let shell = shell.spec(|spec| {
                spec["process"]["env"] = serde_json::json!([crate::spec::PATH, "PS1=at> ", "TERM=dumb"]);
            });
            let shell = shell.start().await?;
            shell.stdout.wait_for("at> ").await?;
            shell.write("sleep 1000\n").await?;
            c.within(PATIENCE, "sleep runs", async || {
                Ok(shell.sh("pgrep -x sleep").await?.code == 0)
            })
            .await?;
            shell.write("\x1a").await?;
            shell.stdout.wait_for("Stopped").await?;
            shell.write("bg; jobs\n").await?;
            shell.stdout.wait_for("Running").await?;
            shell.write("fg\n").await?;
            c.within(PATIENCE, "it is in the foreground", async || {
                let states = shell.sh("ps -o stat= -C sleep").await?;
                Ok(states.stdout.contains('+'))
            })
            .await?;
            shell.write("\x03").await?;
            shell.write("echo ended with $?\n").await?;
            shell.stdout.wait_for("ended with 130").await?;
            shell.write("exit 6\n").await?;
            same!(shell.wait().await?, 6);
            let seen = shell.stdout.text();
            ensure!(!seen.contains("no job control"), "{seen}");
            Ok(())
        },
    );
}
