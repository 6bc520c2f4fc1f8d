package registry

import (
	"net/http"
	"testing"
)

func TestWhereUploadsGoOn(t *testing.T) {
	for _, c := range []struct{ from, location, want string }{
		{"https://registry.example/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/1?state=x", "https://registry.example/v2/a/blobs/uploads/1?state=x"},
		{"https://registry.example/v2/a/blobs/uploads/", "https://storage.example/1", "https://storage.example/1"},
		{"https://registry.example/v2/a/blobs/uploads/", "http://169.254.169.254/latest", ""},
		{"https://registry.example/v2/a/blobs/uploads/", "http://localhost:2375/build", ""},
		{"https://registry.example/v2/a/blobs/uploads/", "http://10.1.2.3/", ""},
		{"http://10.1.2.3/v2/a/blobs/uploads/", "http://10.1.2.3:5000/1", "http://10.1.2.3:5000/1"},
		{"http://localhost:5000/v2/a/blobs/uploads/", "http://127.0.0.1:5000/1", "http://127.0.0.1:5000/1"},
		{"https://registry.example/v2/a/blobs/uploads/", "", ""},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.from, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response := &http.Response{Request: request, Header: http.Header{}}
		if c.location != "" {
			response.Header.Set("Location", c.location)
		}
		var u Upload
		if err := u.goesOnAt(response); u.location != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", c.location, u.location, err, c.want)
		}
	}
}
