package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxKeys is how many bytes a file of keys may have.
const maxKeys = 1 << 20

// minRSA is how many bits a modulus must have.
const minRSA = 2048

// readKeys reads public keys. They are read for each image, so that new ones need no
// restart.
func readKeys(files []string) (keys []crypto.PublicKey, err error) {
	for _, file := range files {
		data, err := readBounded(file)
		if err != nil {
			return nil, fmt.Errorf("reading keys: %w", err)
		}
		of, err := parseKeys(data)
		if err != nil {
			return nil, fmt.Errorf("reading keys: %s: %w", file, err)
		}
		keys = append(keys, of...)
	}
	return keys, nil
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err == nil && len(data) > maxKeys {
		err = fmt.Errorf("%s has more than %d bytes", file, maxKeys)
	}
	return data, err
}

// parseKeys reads the PEM blocks of a file, one or more, which must all be public keys
// of kinds that are known.
func parseKeys(data []byte) (keys []crypto.PublicKey, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key, err := parseKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no public key (PEM) in it")
	}
	return keys, nil
}

func parseKey(block *pem.Block) (key crypto.PublicKey, err error) {
	switch {
	case block.Type == "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, fmt.Errorf("it has a private key (%s): the public key is wanted", block.Type)
	default:
		return nil, fmt.Errorf("it has a %s: a PUBLIC KEY is wanted", block.Type)
	}
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("it has an ECDSA key on the curve %s: P-256 is wanted", key.Params().Name)
		}
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSA {
			return nil, fmt.Errorf("it has an RSA key of %d bits: at least %d are wanted", n, minRSA)
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("it has a key of an unknown kind (%T): ECDSA P-256, Ed25519 and RSA are known", key)
	}
	return key, nil
}

// holds says whether a key signed a message, by the schemes that cosign has for its
// kind.
func holds(key crypto.PublicKey, message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	case ed25519.PublicKey:
		if ed25519.Verify(key, message, signature) {
			return true
		}
		// Cosign signs the hash (RFC 8032, Ed25519ph) where a log must have it.
		hash := sha512.Sum512(message)
		return ed25519.VerifyWithOptions(key, hash[:], signature, &ed25519.Options{Hash: crypto.SHA512}) == nil
	}
	return false
}
