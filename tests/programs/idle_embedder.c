/* Has an interpreter and a thread that may use it at any time, but runs no Python code. */
#include <Python.h>
#include <unistd.h>

int main(void)
{
    Py_InitializeEx(0);
    PyEval_SaveThread();
    write(1, "ready\n", 6);
    for (;;)
        pause();
}
