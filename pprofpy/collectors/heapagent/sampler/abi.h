/* Python's binary interface: what we use of it, and of the C library. Nothing comes from Python.h. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct object { intptr_t refcnt; struct object *type; } PyObject;
typedef struct { const char *name; PyObject *(*function)(PyObject *, PyObject *); int flags; const char *doc; } PyMethodDef;
typedef struct {
    PyObject base;
    void *init;
    intptr_t index;
    PyObject *copy;
    const char *name, *doc;
    intptr_t size;
    PyMethodDef *methods;
    void *slots, *traverse, *clear, *free;
} PyModuleDef;
typedef struct {
    void *ctx;
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t count, size_t size);
    void *(*realloc)(void *ctx, void *old, size_t size);
    void (*free)(void *ctx, void *block);
} Allocator; /* PyMemAllocatorEx, and PyDataMemAllocator up to `free` */

#define WEAK __attribute__((weak))
extern PyObject *PyModule_Create2(PyModuleDef *, int);
extern int PyArg_ParseTuple(PyObject *, const char *, ...);
extern PyObject *Py_BuildValue(const char *, ...);
extern PyObject *PyBytes_FromStringAndSize(const char *, intptr_t);
extern PyObject *PyList_New(intptr_t);
extern int PyList_SetItem(PyObject *, intptr_t, PyObject *);
extern PyObject *PyList_GetItem(PyObject *, intptr_t);
extern intptr_t PyList_Size(PyObject *);
extern PyObject *PyTuple_GetItem(PyObject *, intptr_t);
extern intptr_t PyTuple_Size(PyObject *);
extern long long PyLong_AsLongLong(PyObject *);
extern void *PyCapsule_GetPointer(PyObject *, const char *);
extern const char *PyCapsule_GetName(PyObject *);
extern void PyErr_SetString(PyObject *, const char *);
extern void PyErr_Clear(void);
extern PyObject *PyExc_RuntimeError;
extern char PyCode_Type[];
extern void Py_IncRef(PyObject *);
extern void Py_DecRef(PyObject *);
extern int PyCode_Addr2Line(PyObject *, int);
extern int PyFrame_GetLineNumber(void *);
extern void *PyGILState_GetThisThreadState(void);
extern unsigned long PyThread_get_thread_ident(void);
extern int Py_AddPendingCall(int (*)(void *), void *);
extern int Py_IsInitialized(void);
extern const char *Py_GetVersion(void);
extern void PyMem_GetAllocator(int, Allocator *);
extern void PyMem_SetAllocator(int, Allocator *);
extern void *PyMem_RawMalloc(size_t);
extern void PyMem_RawFree(void *);
extern void *PyMem_Malloc(size_t);
extern void PyMem_Free(void *);
extern void *PyObject_Malloc(size_t);
extern void PyObject_Free(void *);
extern void *_PyThreadState_UncheckedGet(void) WEAK; /* up to 3.12 */
extern void *PyThreadState_GetUnchecked(void) WEAK;  /* from 3.13 on */
extern int _PyObject_DebugMallocStats(FILE *) WEAK;
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *) WEAK; /* glibc's pthread_atfork */
extern int musl_atfork(void (*)(void), void (*)(void), void (*)(void)) __asm__("pthread_atfork") WEAK;
struct mallinfo2_s { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
extern struct mallinfo2_s mallinfo2_(void) __asm__("mallinfo2") WEAK; /* glibc 2.33 */

#define LOCAL_FAST static __thread /* how they are found: see LIBRARIES in hatch_build.py */
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELEASE)
#define ADD(x, value) __atomic_fetch_add(&(x), (value), __ATOMIC_ACQ_REL)
