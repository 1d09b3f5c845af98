#!/usr/bin/env bash
# The whole of the GitHub Action. Inputs come as INPUT_* variables, never as part of a command.
#
# Text that comes from the checked repository reaches the log only between stop-commands markers,
# so that no line of it is taken for a workflow command. Works with bash 3.2 (macOS).
set -euo pipefail

action=${GITHUB_ACTION_PATH:?}
work=$(mktemp -d "${RUNNER_TEMP:?}/llmlint.XXXXXX")

# One message of our own; newlines cannot occur in what is passed.
say() { printf '::%s title=llmlint::%s\n' "$1" "$2"; }

finish() { # verdict findings peak exit-code
  {
    printf 'verdict=%s\n' "$1"
    printf 'findings=%s\n' "$2"
    printf 'worst-peak-bytes=%s\n' "$3"
  } >>"$GITHUB_OUTPUT"
  exit "$4"
}

could_not() {
  say error "$1"
  printf '## llmlint\n\nllmlint could not do its job: %s\n' "$1" >>"$GITHUB_STEP_SUMMARY"
  finish none 0 '' 2
}

# Prints files of repository text. A token of 128 random bits ends the silence.
print_inert() {
  local token
  token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  [ "${#token}" -eq 32 ] || could_not 'no random numbers for the log markers'
  printf '::stop-commands::%s\n' "$token"
  cat -- "$@"
  printf '\n::%s::\n' "$token"
}

target() {
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) echo x86_64-unknown-linux-musl ;;
    Linux-aarch64 | Linux-arm64) echo aarch64-unknown-linux-musl ;;
    Darwin-x86_64) echo x86_64-apple-darwin ;;
    Darwin-arm64) echo aarch64-apple-darwin ;;
    MINGW*-x86_64 | MSYS*-x86_64) echo x86_64-pc-windows-msvc ;;
    *) echo none ;;
  esac
}

build() {
  command -v cargo >/dev/null ||
    could_not 'no released binary for this version and system, and no Rust to build one (see docs/action.md)'
  say notice 'no released binary for this version and system: building from source, which takes minutes'
  # Not in the checked repository: its .cargo/config.toml or rust-toolchain.toml would be obeyed.
  (cd "$action" && cargo install --quiet --locked --path . --root "$work/build" --target-dir "$work/target") ||
    could_not 'building from source failed'
  binary=$work/build/bin/llmlint
}

# Sets `binary`: a given one, a released one whose checksum this action knows, else a build.
find_binary() {
  local wanted=${INPUT_VERSION#v} system sum version name sum_found='' version_found=''
  if [ -n "${LLMLINT_BINARY:-}" ]; then
    binary=$LLMLINT_BINARY
    return
  fi
  system=$(target)
  if [ "$wanted" != source ]; then
    # The table is in the order of releases: the last match is the newest.
    while read -r sum version name; do
      if [ "$name" = "$system" ] && { [ -z "$wanted" ] || [ "$version" = "$wanted" ]; }; then
        sum_found=$sum version_found=$version
      fi
    done < <(grep -v '^#' "$action/action/checksums.txt" || true)
    if [ -z "$version_found" ] && [ -n "$wanted" ]; then
      could_not 'this action has no checksum for that version on this system; use a newer action, or leave version out'
    fi
  fi
  if [ -z "$version_found" ]; then
    build
    return
  fi
  local archive="llmlint-$version_found-$system.tar.gz"
  curl --fail --silent --show-error --location --proto '=https' --tlsv1.2 --retry 3 --output "$work/archive" \
    "https://github.com/llmlint/llmlint/releases/download/v$version_found/$archive" ||
    could_not 'the release could not be downloaded'
  local actual
  if command -v sha256sum >/dev/null; then
    actual=$(sha256sum <"$work/archive")
  else
    actual=$(shasum -a 256 <"$work/archive")
  fi
  [ "${actual%% *}" = "$sum_found" ] ||
    could_not 'the downloaded release is not the one this action knows (checksum differs); not run'
  # Relative: tar takes the colon of a Windows path for a host.
  (cd "$work" && tar -xzf archive) || could_not 'the release cannot be unpacked'
  binary=$work/llmlint
}

# Gives the commit of a revision, fetched when the checkout is shallow and does not have it.
commit_of() {
  local revision=$1 depth=()
  case $revision in -* | *[!A-Za-z0-9._/~^@{}-]*) return 1 ;; esac
  git rev-parse --verify --quiet "$revision^{commit}" && return
  case $revision in *[~^@{}]*) return 1 ;; esac
  if [ "$(git rev-parse --is-shallow-repository)" = true ]; then depth=(--depth=1); fi
  GIT_TERMINAL_PROMPT=0 git fetch --quiet --no-tags ${depth[@]+"${depth[@]}"} origin "$revision" >&2 || return 1
  git rev-parse --verify --quiet 'FETCH_HEAD^{commit}'
}

# Sets `since`: what was asked for, else the pull request's base, else nothing.
find_since() {
  local wanted=${INPUT_SINCE:-} parents
  since=''
  [ "$wanted" != none ] || return 0
  if [ -n "$wanted" ]; then
    since=$(commit_of "$wanted" 2>"$work/git") || could_not 'the revision given as "since" is not known to git'
    return
  fi
  [ -n "${PULL_REQUEST_BASE:-}" ] || return 0
  # GitHub checks out a merge of the base and the change: its first parent is the base that counts,
  # while the event may name an older one.
  wanted=$PULL_REQUEST_BASE
  if [ "$(git rev-parse HEAD 2>"$work/git")" = "${GITHUB_SHA:-}" ]; then
    parents=$(git cat-file commit HEAD 2>"$work/git" | sed -n '/^$/q; s/^parent //p') || true
    case $parents in *$'\n'*) wanted=${parents%%$'\n'*} ;; esac
  fi
  since=$(commit_of "$wanted" 2>"$work/git") || {
    since=''
    say warning 'the base of this pull request could not be fetched: every config is reported, without its change'
  }
}

# Keeps the summary in one comment. Without the permission for it the run goes on.
comment() {
  local pulls="repos/${GITHUB_REPOSITORY:-}/issues" marker='<!-- llmlint summary -->' id
  if [ -z "${PULL_REQUEST_NUMBER:-}" ] || ! command -v gh >/dev/null; then
    say notice 'no comment written: this is no pull request, or gh is not installed'
    return
  fi
  {
    printf '%s\n' "$marker"
    # A comment may have 65,536 characters.
    if [ "$(wc -c <"$work/summary.md")" -lt 60000 ]; then
      cat "$work/summary.md"
    else
      printf '## llmlint\n\nThe summary is too long for a comment; the job summary has it.\n'
    fi
  } >"$work/comment.md"
  if id=$(gh api --paginate "$pulls/$PULL_REQUEST_NUMBER/comments" --jq \
    ".[] | select(.user.login == \"github-actions[bot]\" and (.body | startswith(\"$marker\"))) | .id" 2>"$work/gh"); then
    id=${id%%$'\n'*}
    if [ -n "$id" ]; then
      gh api --method PATCH "$pulls/comments/$id" -F body=@"$work/comment.md" >/dev/null 2>"$work/gh" && return
    else
      gh api --method POST "$pulls/$PULL_REQUEST_NUMBER/comments" -F body=@"$work/comment.md" \
        >/dev/null 2>"$work/gh" && return
    fi
  fi
  say notice 'no comment written: the token may not (pull requests from forks have a read-only token)'
}

case ${INPUT_FORMAT:=pretty} in
  pretty | concise | narrated) ;;
  *) could_not 'format must be pretty, concise or narrated' ;;
esac

find_binary
find_since

arguments=(check
  --format jsonl --output-file "$work/lines.jsonl"
  --format json --output-file "$work/report.json"
  --format markdown --output-file "$work/summary.md"
  --format github --output-file "$work/annotations")
[ -z "${INPUT_SARIF_FILE:-}" ] || arguments+=(--format sarif "--output-file=$INPUT_SARIF_FILE")
# The one format without a file comes last and goes to stdout.
arguments+=(--format "$INPUT_FORMAT" --color never)
[ -z "${INPUT_GPU:-}" ] || arguments+=("--gpu=$INPUT_GPU")
[ -z "${INPUT_GPUS:-}" ] || arguments+=("--gpus=$INPUT_GPUS")
[ -z "${INPUT_BUDGET:-}" ] || arguments+=("--budget=$INPUT_BUDGET")
[ -z "${INPUT_CONFIG:-}" ] || arguments+=("--config=$INPUT_CONFIG")
[ -z "${INPUT_FAIL_ON:-}" ] || arguments+=("--fail-on=$INPUT_FAIL_ON")
[ -z "$since" ] || arguments+=("--since=$since")
arguments+=(--)
# One path a line; a space is part of a path.
paths=0
while IFS= read -r line || [ -n "$line" ]; do
  line=${line%$'\r'}
  line=${line#"${line%%[![:space:]]*}"}
  line=${line%"${line##*[![:space:]]}"}
  [ -n "$line" ] || continue
  arguments+=("$line")
  paths=$((paths + 1))
done <<<"${INPUT_PATHS:-}"
[ "$paths" -gt 0 ] || arguments+=(.)

code=0
"$binary" "${arguments[@]}" </dev/null >"$work/log" 2>"$work/errors" || code=$?
print_inert "$work/errors" "$work/log"

# The last line of JSON lines is figures of ours: nothing in it comes from the repository.
last=$(tail -n 1 "$work/lines.jsonl" 2>/dev/null || true)
figure() {
  local pattern="\"$1\":\"?([a-z0-9]+)"
  if [[ $last =~ $pattern ]]; then printf '%s' "${BASH_REMATCH[1]}"; fi
}
if [ "$code" -gt 1 ] || [ -z "$(figure runs)" ]; then
  could_not "it ended with exit code $code; the log says why"
fi

cat "$work/annotations"
cat "$work/summary.md" >>"$GITHUB_STEP_SUMMARY"
printf 'report=%s\n' "$work/report.json" >>"$GITHUB_OUTPUT"
[ -z "${INPUT_SARIF_FILE:-}" ] || printf 'sarif=true\n' >>"$GITHUB_OUTPUT"
[ "${INPUT_COMMENT_SUMMARY:-}" != true ] || comment

verdict=$(figure verdict)
peak=$(figure worst_peak_bytes)
if [ "$(figure runs)" = 0 ]; then
  verdict=none
  [ -n "$since" ] || say warning 'no training config was found under the given paths'
fi
finish "$verdict" "$(($(figure errors) + $(figure warnings) + $(figure notes)))" "${peak#null}" "$code"
