// 04_cpp.cpp - from C++11: the header as it is, and two small classes that a program of your own
// may want: a payload that frees itself, and a transaction that rolls back unless it is committed.
//
// The database comes from the argument, OUTBOX_DATABASE, or libpq's PG* variables.
#include <outbox/outbox.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

namespace
{

class Payload
{
  public:
    Payload()
    {
        outbox_payload_init(&p_);
    }
    ~Payload()
    {
        outbox_payload_free(&p_);
    }
    Payload(const Payload &) = delete;
    Payload &operator=(const Payload &) = delete;

    // No result to check: the first failure sticks, and enqueueing reports it.
    Payload &put(const char *key, int64_t value)
    {
        outbox_put_int(&p_, key, value);
        return *this;
    }
    Payload &put(const char *key, const std::string &value)
    {
        outbox_put_strn(&p_, key, value.data(), value.size());
        return *this;
    }
    const outbox_payload *get() const
    {
        return &p_;
    }

  private:
    outbox_payload p_;
};

class Transaction
{
  public:
    explicit Transaction(PGconn *conn) : conn_(conn)
    {
        exec("BEGIN");
    }
    ~Transaction()
    {
        if (conn_ != nullptr)
            PQclear(PQexec(conn_, "ROLLBACK"));
    }
    Transaction(const Transaction &) = delete;
    Transaction &operator=(const Transaction &) = delete;

    int64_t enqueue(const char *task, const Payload &payload, const std::string &headers)
    {
        outbox_job job = OUTBOX_JOB(task);
        outbox_error err;
        job.payload = payload.get();
        job.headers = headers.c_str();
        if (outbox_enqueue(conn_, &job, nullptr, &err) != OUTBOX_OK)
            throw std::runtime_error(err.message);
        return job.id;
    }
    void commit()
    {
        exec("COMMIT");
        conn_ = nullptr;
    }

  private:
    void exec(const char *sql)
    {
        std::unique_ptr<PGresult, void (*)(PGresult *)> res(PQexec(conn_, sql), PQclear);
        if (PQresultStatus(res.get()) != PGRES_COMMAND_OK)
            throw std::runtime_error(PQerrorMessage(conn_));
    }

    PGconn *conn_;
};

} // namespace

int main(int argc, char **argv)
{
    const char *environment = getenv("OUTBOX_DATABASE");
    const char *conninfo = argc > 1 ? argv[1] : environment ? environment : "";
    std::unique_ptr<PGconn, void (*)(PGconn *)> conn(PQconnectdb(conninfo), PQfinish);

    try {
        Payload payload;
        payload.put("user", 42).put("email", std::string("ann@example.com"));
        Transaction tx(conn.get());
        int64_t id = tx.enqueue("send-welcome-email", payload, "{\"campaign\": \"spring\"}");
        tx.commit();
        std::cout << "enqueued job " << id << "\n";
    } catch (const std::exception &e) {
        std::cerr << e.what() << "\n";
        return 1;
    }
    return 0;
}
