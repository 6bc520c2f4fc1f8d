// Lets the compiler accept functions without a body: package runtime has them.
