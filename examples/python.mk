# Puts a driver in Python together: the executable NAME with its manifest and, in
# python/, the modules that it needs. protoc is in Debian's protobuf-compiler, what
# it includes in libprotobuf-dev.
OUT ?= build
SDK ?= ../../sdk

.PHONY: build
build:
	install -d -m 0755 $(OUT)/python
	protoc -I $(SDK)/proto --python_out=$(OUT)/python $(SDK)/proto/davit/*/v1/*.proto
	install -m 0644 $(SDK)/python/*.py $(OUT)/python/
	install -m 0755 $(NAME) $(OUT)/
	install -m 0644 $(NAME).json $(OUT)/
