# Collects what kube-proxy runs: nft, conntrack, and the libraries that they are linked with, out of the node's Debian.
# Environment: ROOT, that Debian; OUT, an empty directory.
set -eu
cd "$ROOT"
mkdir -p "$OUT/usr/sbin" "$OUT/usr/local/bin" "$OUT/tmp" "$OUT/etc"
cp usr/sbin/nft usr/sbin/conntrack "$OUT/usr/sbin/"
chroot . ldd /usr/sbin/nft /usr/sbin/conntrack | sed -n 's/.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' | sort -u | while read -r library; do
    mkdir -p "$OUT${library%/*}"
    cp -L ".$library" "$OUT$library"
done
