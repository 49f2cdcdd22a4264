# Sourced by ./check and ./demo: finds and installs what a build and videos need.

# A C compiler builds libdeflate, zstd and BLAKE3's assembly; ffmpeg decodes videos.
BUILD_NEEDS=(cc:gcc)
VIDEO_NEEDS=(ffmpeg:ffmpeg ffprobe:ffmpeg)

# Prints the Debian package of each COMMAND:PACKAGE whose command is not there, one a line.
missing_packages() {
  local pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
  done | sort -u
}

# Installs Debian packages, as root or with a sudo that asks nothing; options of apt-get may come first.
install_packages() {
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq "$@"; } >/dev/null; then
    echo "missing: install the Debian packages $*" >&2
    return 1
  fi
}

need_cargo() {
  if ! command -v cargo >/dev/null; then
    echo "missing: install Rust with rustup (https://rustup.rs)" >&2
    return 1
  fi
}
