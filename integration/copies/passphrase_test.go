package copies

import (
	"os"
	"path/filepath"
	"testing"

	"graphvol/integration/volume"
)

// TestPassphrase: a passphrase alone opens a copy, to attach it or to mount it.
func TestPassphrase(t *testing.T) {
	k := kinds()[1]
	url := k.url(t)
	u := newUser(t, volume.Options{Args: k.args(url)})
	u.snapshot("a")
	u.run("sync", u.Mount, "--wait")
	dir := t.TempDir()
	words, wrong, empty := filepath.Join(dir, "words"), filepath.Join(dir, "wrong"), filepath.Join(dir, "empty")
	for path, text := range map[string]string{words: "six words that nobody knows\n", wrong: "other words\n", empty: "\n"} {
		u.must(os.WriteFile(path, []byte(text), 0o600))
	}
	state := filepath.Join(dir, "state")
	u.refused([]string{"key"}, "attach", url, state, "--passphrase-file", words) // nobody has added it yet
	u.run("key", "add", u.Mount, "vault", "--passphrase-file", words)
	u.refused([]string{"first line"}, "key", "add", u.Mount, "other", "--passphrase-file", empty)
	u.must(u.Umount(t.Context()))

	u.refused([]string{"key"}, "attach", url, state, "--passphrase-file", wrong)
	u.refused([]string{"can't be read"}, "attach", url, state, "--passphrase-file", filepath.Join(dir, "not", "there"))
	u.run("attach", url, state, "--passphrase-file", words)
	u.restored(state)
	u.refused([]string{"--passphrase-file"}, "key", "recovery", state)

	shown := filepath.Join(dir, "shown")
	u.must(os.Mkdir(shown, 0o755))
	u.run("mount-store", url, shown, "--passphrase-file", words, "--cache-dir", filepath.Join(dir, "cache"))
	same(t, "a", content(t, filepath.Join(shown, "a")), u.want["a"])
	u.run("umount", shown)
}
