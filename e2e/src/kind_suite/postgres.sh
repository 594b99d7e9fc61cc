# Collects PostgreSQL with all that it is linked with, out of a Debian that has it; a shell and a few tools are busybox'.
# Environment: ROOT, that Debian; BUSYBOX, a static one; OUT, an empty directory.
set -eu
cd "$ROOT"
server=usr/lib/postgresql/15
mkdir -p "$OUT/$server/bin" "$OUT/$server/lib" "$OUT/usr/share/postgresql" "$OUT/usr/share/zoneinfo" "$OUT/usr/lib/locale" \
    "$OUT/bin" "$OUT/etc" "$OUT/proc" "$OUT/sys" "$OUT/dev" "$OUT/data"
mkdir -m 1777 "$OUT/tmp"
for program in postgres initdb psql pg_isready; do
    cp "$server/bin/$program" "$OUT/$server/bin/"
done
# Compiling queries takes a compiler of 100 MB.
cp "$server"/lib/*.so "$OUT/$server/lib/"
rm -f "$OUT/$server/lib/llvmjit.so"
cp -r usr/share/postgresql/15 "$OUT/usr/share/postgresql/"
cp usr/share/zoneinfo/UTC "$OUT/usr/share/zoneinfo/"
cp -r usr/lib/locale/C.utf8 "$OUT/usr/lib/locale/"
(cd "$OUT" && find "$server" -type f) | sed 's:^:/:' | xargs chroot . ldd 2>/dev/null |
    sed -n 's/.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' | sort -u | while read -r library; do
    mkdir -p "$OUT${library%/*}"
    cp -L ".$library" "$OUT$library"
done
cp "$BUSYBOX" "$OUT/bin/busybox"
for applet in sh cat chown id ls mkdir rm sleep touch; do
    ln -s busybox "$OUT/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\npostgres:x:999:999::/data:/bin/sh\n' >"$OUT/etc/passwd"
printf 'root:x:0:\npostgres:x:999:\n' >"$OUT/etc/group"
