# What every pack says and reads the same way. Sourced by bash, from a pack's compile.

step() { printf -- '-----> %s\n' "$*"; }
indent() { sed -u '/^[[:blank:]]*$/d; s/^/       /'; }

# Config vars are files, and a pack takes only those that its own tools read: the rest of an app's
# settings are no business of a build.
config_vars() {
    local env_dir=$1 pattern=$2 file
    for file in "$env_dir"/*; do
        # shellcheck disable=SC2254
        case ${file##*/} in
        $pattern) [ -f "$file" ] && export "${file##*/}=$(cat "$file")" ;;
        esac
    done
}

# The name of a set of inputs: equal inputs, equal name.
fingerprint() { sha256sum | cut -d ' ' -f 1; }
